"""All topics: which exist, how many there may be, and which are forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from blipmq.broker.context import Context
from blipmq.broker.message import OVERHEAD_BYTES
from blipmq.broker.topic import Topic
from blipmq.errors import LimitExceeded


def _nobody(topic: Topic) -> None:
    pass


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class Topics:
    """A topic comes with its first message or subscription, and goes when nothing is in it.

    `on_new` is told of every new one, before anything is in it; `on_full` may make room when there
    are as many as there may be.
    """

    context: Context
    on_new: Callable[[Topic], None] = _nobody
    on_full: Callable[[], None] = _nothing
    _by_name: dict[bytes, Topic] = attrs.Factory(dict)

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._by_name.values()))

    def find(self, name: bytes) -> Topic | None:
        return self._by_name.get(name)

    def make(self, name: bytes) -> Topic:
        """The topic of this name. Raises LimitExceeded when there is no room for a new one."""
        topic = self._by_name.get(name)
        if topic is None:
            if len(self._by_name) >= self.context.limits.max_topics:
                self.on_full()
            if len(self._by_name) >= self.context.limits.max_topics:
                raise LimitExceeded(429, "too many topics")
            self.check_memory(len(name) + OVERHEAD_BYTES)
            topic = self._add(name)
            self.on_new(topic)
        return topic

    def restore(self, name: bytes) -> Topic:
        """The topic of this name, which was there before a restart."""
        return self._by_name.get(name) or self._add(name)

    def _add(self, name: bytes) -> Topic:
        topic = self._by_name[name] = Topic(name, self.context)
        self.context.stats.topics = len(self._by_name)
        return topic

    def check_memory(self, size: int) -> None:
        """Raises LimitExceeded when there is no room for so many bytes."""
        context = self.context
        if context.stats.memory_bytes + size > context.limits.max_message_bytes:
            raise LimitExceeded(429, "memory limit reached")

    def forget(self, topic: Topic) -> None:
        """Let go of a topic that nothing is in and nobody waits for."""
        if topic.unused and self._by_name.get(topic.name) is topic:
            del self._by_name[topic.name]
            self.context.timers.cancel(topic)
            self.context.stats.topics = len(self._by_name)
