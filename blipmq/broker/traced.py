"""A broker that tells a tracer of its steps; without tracing there is a plain one, so it is free.

Nothing is remembered for a message: it carries its context, so each step finds it anew in the
bytes. Messages without a sampled context cost one search through the bytes of their run.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from blipmq.broker.attachment import Attachment
from blipmq.broker.broker import Broker
from blipmq.broker.publication import Publisher
from blipmq.broker.subscription import Taken
from blipmq.broker.taken import Messages, TakenRange
from blipmq.broker.tracing import Step, Traced, Tracer
from blipmq.errors import Refused
from blipmq.protocol.frames import Outcome
from blipmq.protocol.run import Run
from blipmq.protocol.trace_context import sampled_contexts


def _traced(run: Run, start: int = 0, stop: int | None = None, attempt: int = 1) -> list[Traced]:
    return [
        Traced(context, run.first + index if run.first else 0, attempt)
        for index, context in sampled_contexts(run, start, stop)
    ]


@attrs.frozen(eq=False)
class _Commit:
    """In the place of a publisher: sees the commit, and tells the publisher."""

    publisher: Publisher
    tracer: Tracer
    began: int

    def on_committed(self, run: Run) -> None:
        self.tracer.ended(Step.COMMIT, self.began, run.topic, _traced(run))
        self.publisher.on_committed(run)

    def on_failed(self, run: Run, reason: str) -> None:
        self.tracer.ended(Step.COMMIT, self.began, run.topic, _traced(run), error=reason)
        self.publisher.on_failed(run, reason)


@attrs.define(eq=False)
class TracedBroker(Broker):
    """As `Broker`."""

    tracer: Tracer = attrs.field(kw_only=True)

    def publish(self, run: Run, publisher: Publisher, now: float) -> int:
        found = list(sampled_contexts(run))
        if not found:
            return Broker.publish(self, run, publisher, now)
        tracer = self.tracer
        began = tracer.now()
        if run.qos:
            publisher = _Commit(publisher, tracer, began)
        error: str | None = None
        try:
            return Broker.publish(self, run, publisher, now)
        except Refused as refused:
            error = str(refused)
            raise
        finally:
            first = run.first
            traced = [Traced(context, first + at if first else 0) for at, context in found]
            tracer.ended(Step.PUBLISH, began, run.topic, traced, error=error)

    def relay(
        self, messages: Messages, resume: Callable[[], None], now: float
    ) -> tuple[list[Run], float | None]:
        began = self.tracer.now()
        runs, until = Broker.relay(self, messages, resume, now)
        # What was not relayed is published, and told of, as runs of their own.
        if isinstance(messages, Run) and not runs and (traced := _traced(messages)):
            self.tracer.ended(Step.PUBLISH, began, messages.topic, traced)
        return runs, until

    def deliver(self, attachment: Attachment, bytes_max: int, now: float) -> list[TakenRange]:
        began = self.tracer.now()
        taken = Broker.deliver(self, attachment, bytes_max, now)
        for part in taken:
            self._delivered(part, attachment, began)
        return taken

    def poll(self, attachment: Attachment, now: float) -> TakenRange | None:
        began = self.tracer.now()
        taken = Broker.poll(self, attachment, now)
        if taken is not None:
            self._delivered(taken, attachment, began)
        return taken

    def _delivered(self, part: TakenRange, attachment: Attachment, began: int) -> None:
        run = part.messages
        if isinstance(run, Run) and (traced := _traced(run, part.start, part.stop, part.attempt)):
            attributes = _of(attachment)
            self.tracer.ended(Step.DELIVER, began, run.topic, traced, attributes=attributes)

    def take(self, owner: str, id_: int, session: object, now: float) -> Taken | None:
        began = self.tracer.now()
        taken = Broker.take(self, owner, id_, session, now)
        if taken is not None:
            run, at = taken.run, taken.index
            if traced := _traced(run, at, at + 1, taken.attempt):
                self.tracer.ended(Step.DELIVER, began, run.topic, traced)
        return taken

    def accept(self, owner: str, id_: int, tag: int) -> None:
        began = self.tracer.now()
        subscription = self._find(owner, id_)
        found = [] if subscription is None else subscription.unsettled.overlapping(tag, tag)
        Broker.accept(self, owner, id_, tag)
        for delivery in found:
            run, at = delivery.run, tag - delivery.run.first
            if traced := _traced(run, at, at + 1, delivery.attempt):
                attributes = {"blipmq.outcome": Outcome.ACCEPT.name.lower()}
                self.tracer.ended(Step.SETTLE, began, run.topic, traced, attributes=attributes)

    def settle(
        self,
        attachment: Attachment,
        outcome: Outcome,
        first: int,
        last: int,
        delay_ms: int,
        now: float,
    ) -> bool:
        began = self.tracer.now()
        settled = []
        for delivery in attachment.deliveries.overlapping(first, last):
            run = delivery.run
            start = max(first, delivery.first) - run.first
            stop = min(last, delivery.last) - run.first + 1
            if traced := _traced(run, start, stop, delivery.attempt):
                settled.append((run.topic, traced))
        found = Broker.settle(self, attachment, outcome, first, last, delay_ms, now)
        attributes = {**_of(attachment), "blipmq.outcome": outcome.name.lower()}
        for topic, traced in settled:
            self.tracer.ended(Step.SETTLE, began, topic, traced, attributes=attributes)
        return found


def _of(attachment: Attachment) -> dict[str, str | int]:
    name = attachment.subscription.name
    return {"messaging.destination.subscription.name": name.decode()} if name else {}
