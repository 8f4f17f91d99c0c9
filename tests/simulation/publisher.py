"""A user that publishes what the plan says."""

from __future__ import annotations

import attrs
import trio

from blipmq.client.client import Client
from blipmq.errors import BlipMQError, PublisherFailed, Refused
from tests.simulation.clients import client_of
from tests.simulation.network import Network
from tests.simulation.plan import Burst, Send
from tests.simulation.trace import Trace
from tools.history.history import History
from tools.history.message import Message, Source


def body_of(send: Send) -> bytes:
    """Known by its number; none of it is zero."""
    return b"m%05d|" % send.number + b"x" * send.size


@attrs.define(eq=False)
class Publisher:
    """All bursts of one user, in order. A client that is lost for good is replaced."""

    who: str
    bursts: list[Burst]
    network: Network
    history: History
    trace: Trace
    dedup_window: float
    done: trio.Event = attrs.Factory(trio.Event)
    _life: int = 0

    async def run(self) -> None:
        bursts = iter(self.bursts)
        burst = next(bursts, None)
        while burst is not None:
            await trio.sleep_until(burst.at)
            self._life += 1
            try:
                async with client_of(self.network, self.who, burst.version, self._life) as client:
                    while burst is not None:
                        await trio.sleep_until(burst.at)
                        current, burst = burst, next(bursts, None)
                        await self._publish(client, current)
            except (BlipMQError, OSError) as error:
                self.trace.note(self.who, "lost", type(error).__name__)
                await trio.sleep(0.05)
        self.done.set()

    async def _publish(self, client: Client, burst: Burst) -> None:
        with trio.move_on_after(burst.patience):
            if burst.pipeline:
                for topic, qos in dict.fromkeys((s.topic, s.qos) for s in burst.sends):
                    sends = [s for s in burst.sends if (s.topic, s.qos) == (topic, qos)]
                    await self._pipeline(client, topic, qos, sends)
            else:
                for send in burst.sends:
                    await self._one(client, send)

    def _asking(self, send: Send, client: Client) -> Message:
        connections = sum(line.who == self.who for line in self.network.lines)
        self.trace.note(self.who, "publishes", send.number)
        return self.history.asking(
            body_of(send)[:6],
            send.topic,
            send.qos,
            Source(self.who, self._life),
            connections=connections,
            key=send.key,
            ttl=send.ttl,
            delay=send.delay,
        )

    def _in_doubt(self, message: Message) -> None:
        """The client may yet send it again, when the broker has forgotten it."""
        self.history.asked(message)
        if self.dedup_window < 60:
            message.may_be_doubled = True

    async def _one(self, client: Client, send: Send) -> None:
        message = self._asking(send, client)
        try:
            await client.publish(
                send.topic,
                body_of(send),
                qos=send.qos,
                ttl=send.ttl,
                delay=send.delay or None,
                key=send.key,
                message_id=b"id %d" % send.number if send.named else None,
            )
        except Refused as error:
            self.trace.note(self.who, "refused", send.number, error.code)
            self.history.refused(message)
        except BaseException:
            self._in_doubt(message)
            raise
        else:
            if send.qos:
                self.trace.note(self.who, "confirmed", send.number)
                self.history.confirmed(message)

    async def _pipeline(self, client: Client, topic: str, qos: int, sends: list[Send]) -> None:
        under_way: list[Message] = []
        try:
            async with client.open_publisher(topic, qos=qos) as publisher:
                for send in sends:
                    under_way.append(self._asking(send, client))
                    await publisher.send(
                        body_of(send),
                        ttl=send.ttl,
                        delay=send.delay or None,
                        key=send.key,
                        message_id=b"id %d" % send.number if send.named else None,
                    )
        except PublisherFailed as error:
            failures = dict(error.failures)
            for number, message in enumerate(under_way):
                failure = failures.get(number)
                if isinstance(failure, Refused):
                    self.history.refused(message)
                elif failure is not None:
                    self._in_doubt(message)
                else:
                    self.history.confirmed(message)
        except BaseException:
            for message in under_way:
                self._in_doubt(message)
            raise
        else:
            for message in under_way if qos else ():
                self.trace.note(self.who, "confirmed", message.body)
                self.history.confirmed(message)
