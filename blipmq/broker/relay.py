"""Relaying QoS 0: messages that all go the same way are handed on as they came, past their topics.

A topic's list is for messages that wait: for a commit, for a subscriber that polls, for one that
has others before. Where nothing of that is so, what a publisher sent in one go is queued for each
attachment as one stretch of bytes, whatever topics are in it.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

import attrs

from blipmq.broker.attachment import Attachment
from blipmq.broker.context import Context
from blipmq.broker.message import OVERHEAD_BYTES, Charge
from blipmq.broker.shared_cursor import SharedCursor
from blipmq.broker.taken import Messages
from blipmq.broker.topics import Topics
from blipmq.protocol.run import Run
from blipmq.protocol.span import Span


@attrs.frozen(eq=False, weakref_slot=True)
class Route:
    """Where all QoS 0 messages of some topics go; the same object for the same attachments."""

    members: tuple[Attachment, ...]

    @property
    def clear(self) -> bool:
        """Whether all have taken what came before by way of the topics."""
        for member in self.members:  # noqa: SIM110, half of what all() costs
            if not member.subscription.caught_up:
                return False
        return True


@attrs.define(eq=False)
class Relay:
    """Finds the routes of topics. `Context.routes` has them, until they may have changed."""

    context: Context
    topics: Topics
    _by_members: WeakValueDictionary[tuple[Attachment, ...], Route] = attrs.Factory(
        WeakValueDictionary
    )

    def take(
        self, messages: Messages, resume: Callable[[], None], now: float
    ) -> tuple[list[Run], float | None]:
        """Relay what can be. Returns the runs that have to go by way of their topics, and until
        when the publisher should wait for slow attachments, if at all: `resume` is called when it
        need not any more.
        """
        context = self.context
        limits, stats = context.limits, context.stats
        room = limits.max_message_bytes - stats.memory_bytes
        if context.retention.message_ttl_ms or messages.size + OVERHEAD_BYTES > room:
            return messages.runs(), None
        if isinstance(messages, Run):
            route = self._route(messages.topic)
            expires = messages.ttl_ms is not None or messages.message_ids is not None
            if route is None or expires or not route.clear:
                return [messages], None
            return [], self._send(messages, route, resume, now)
        return self._take_span(messages, resume, now)

    def _take_span(
        self, span: Span, resume: Callable[[], None], now: float
    ) -> tuple[list[Run], float | None]:
        found = self.context.routes
        routes = list(map(found.get, span.topics))
        if None in routes:
            by_name = {name: self._route(name) for name in set(span.topics)}
            routes = [by_name[name] for name in span.topics]
        route = routes[0]
        if routes.count(route) == len(routes):
            if route is None or not route.clear:
                return span.runs(), None
            return [], self._send(span, route, resume, now)
        groups: dict[Route | None, list[int]] = {}
        for index, route in enumerate(routes):
            groups.setdefault(route, []).append(index)
        rest: list[int] = []
        latest: float | None = None
        for route, indices in groups.items():
            if route is None or not route.clear:
                rest += indices
                continue
            until = self._send(span.some(indices), route, resume, now)
            if until is not None:
                latest = until if latest is None else max(latest, until)
        return span.runs(sorted(rest)), latest

    def _send(
        self, messages: Messages, route: Route, resume: Callable[[], None], now: float
    ) -> float | None:
        context = self.context
        context.stats.published[0] += messages.count
        messages.stamp(context.give_number(messages.count))
        messages.charge = Charge(context.stats, messages.size + OVERHEAD_BYTES)
        latest: float | None = None
        for member in route.members:
            unsent = member.unsent
            unsent.add(messages, now)
            member.consumer.wake(member)
            if unsent.full_until is not None:
                until = unsent.pause(resume, now)
                if until is not None:
                    latest = until if latest is None else max(latest, until)
        return latest

    def _route(self, name: bytes) -> Route | None:
        """Where the messages of a topic go, if they need not go by way of it."""
        route = self.context.routes.get(name)
        if route is not None:
            return route
        topic = self.topics.find(name)
        if name.startswith(b"$"):
            return None  # not for clients to publish to
        if topic is None or topic.durable or topic.frontier is not topic.tail:
            return None
        members: list[Attachment] = []
        for cursor in topic.cursors:
            if not isinstance(cursor, SharedCursor):
                return None
            members += cursor.subscription.members
        if not members or not all(member.prefetch for member in members):
            return None
        key = tuple(members)
        route = self._by_members.get(key)
        if route is None:
            route = self._by_members[key] = Route(key)
        self.context.routes[name] = route
        return route
