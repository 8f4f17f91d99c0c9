"""A subscription as its broker and this connection hold it: an id, and messages that wait.

It lasts until the connection ends, for version 1 has no way to end it sooner. The program's
handle on it, `Subscription`, comes and goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import attrs
import trio

from blipmq.client.features import REQUESTS, RETRY_DELAY, not_on_1
from blipmq.client.message import Message, received
from blipmq.client.outgoing import Body
from blipmq.client.polling.connection import Connection
from blipmq.client.polling.delivery import Delivery
from blipmq.client.polling.pace import Pace
from blipmq.client.polling.round import Round
from blipmq.client.topic import decoded
from blipmq.errors import ClientError, Refused
from blipmq.protocol import encoder
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties


@attrs.define(eq=False)
class Feed:
    """Messages that have come and that nobody has taken yet, and who waits for one.

    A message that is taken is in its consumer's hands at once; there is no wait between.
    """

    connection: Connection
    subscription_id: int
    topic: str
    qos: int
    pace: Pace
    waits: bool = attrs.field(default=True, init=False)
    steps: int = attrs.field(default=1, init=False)
    calls: int = attrs.field(default=0, init=False)
    accepted: list[int] = attrs.field(factory=list, init=False)
    quick: int = attrs.field(default=0, init=False)
    working: set[Message] = attrs.field(factory=set, init=False)
    """Version 1 cannot keep them alive."""
    batches: set[Iterable[Message]] = attrs.field(factory=set, init=False)
    _waiting: OrderedDict[int, Message] = attrs.field(factory=OrderedDict, init=False)
    """By correlation id, oldest first: the delivery tag, or at QoS 0 that of the POLL."""
    _settled: set[int] = attrs.field(factory=set, init=False)
    """Tags accepted behind the POLLs under way, which may yet bring them again."""
    _receivers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _wanted: trio.Event = attrs.field(factory=trio.Event, init=False)
    _error: Refused | None = attrs.field(default=None, init=False)

    # For the consumer.

    def take(self) -> Message | None:
        """The oldest message. Raises why there will be none any more."""
        if self._waiting:
            _, message = self._waiting.popitem(last=False)
            self.pace.took()
            if self.pace.low(len(self._waiting)):
                self._wanted.set()
            return message
        if self._error is not None:
            raise type(self._error)(self._error.code, self._error.message)
        self.connection.check()
        return None

    async def arrival(self) -> None:
        """Waits for a message or for `wake`; someone else may take the message."""
        self._wanted.set()
        await self._receivers.park()

    def wake(self) -> None:
        """Wakes everyone who waits for a message, to look again."""
        self._receivers.unpark_all()

    # For its messages.

    async def room(self) -> None:
        await self.connection.room()

    def settle(self, first: int, last: int, outcome: Outcome, delay_ms: int) -> None:
        """Version 1 can only accept; what is not accepted comes again by itself."""
        if outcome is Outcome.ACCEPT:
            for tag in range(first, last + 1):
                self._accept(tag)
        elif outcome is not Outcome.RETRY:
            raise not_on_1(outcome.name.lower())
        elif delay_ms:
            raise not_on_1(RETRY_DELAY)

    async def respond(self, topic: str, body: Body, properties: MessageProperties | None) -> None:
        await trio.lowlevel.checkpoint()
        raise not_on_1(REQUESTS)

    def _accept(self, tag: int) -> None:
        self._settled.add(tag)
        self._waiting.pop(tag, None)
        self.connection.tell(lambda _: encoder.ack(tag, self.subscription_id))

    # For the poller.

    async def wanted(self) -> int:
        """How many messages to ask for; waits while it is none."""
        while True:
            now = trio.current_time()
            polls = self.pace.polls(now, len(self._waiting), starved=bool(self._receivers))
            if polls:
                return polls
            self._wanted = trio.Event()
            await self._wanted.wait()

    def ask(self, polls: int) -> Round:
        """Asks for messages. Every ACK until now is ahead of the POLLs, so it counts for them."""
        self._settled.clear()
        return self.connection.poll(self.subscription_id, polls, self)

    # For the connection.

    def deliver(self, delivery: Delivery) -> None:
        key = delivery.correlation_id
        if key in self._settled:
            return
        self._waiting[key] = received(  # in the place of one that waits and has come again
            delivery.body, decoded(delivery.topic), delivery.qos, delivery.tag, self
        )
        self._receivers.unpark()

    def refused(self, error: Refused) -> None:
        self._error = error
        self.wake()

    def lost(self, error: ClientError) -> None:
        """QoS 1 messages are dropped: they can be accepted no more, and come again elsewhere."""
        for key in [key for key, message in self._waiting.items() if message.tag is not None]:
            del self._waiting[key]
        self.wake()
