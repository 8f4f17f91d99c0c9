"""The JSON API of the daemon: what there is, read only. `docs/command.md` describes it.

Without an admin key it tells names and counts, of no client and no message. Lists come in pages,
and however long one is, other tasks have their turns while it is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nsmallest
from importlib.metadata import version
from typing import Any, Final, TypeVar

import attrs
import trio

from blipmq.broker.overview import (
    Amount,
    DeadLettersView,
    Page,
    Paged,
    Steps,
    SubscriptionView,
    TopicView,
)
from blipmq.nursery.connection import Connection
from blipmq.nursery.http_app import Handler, HttpError, Request, Response, Routes, json_response
from blipmq.nursery.state import DaemonState

PREFIX: Final = "/api/v1"
LIMIT: Final = 100
LIMIT_MAX: Final = 1_000
"""Rows that a page has, unless asked otherwise; and at most."""
_NUMBER_MAX: Final = 2**64 - 1
_NOT_YET: Final = ("starting", "recovering")

T = TypeVar("T")


async def finished(steps: Steps[T]) -> T:
    """The result of steps, between which others have their turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await trio.lowlevel.checkpoint()


def require_broker(state: DaemonState) -> None:
    """Raises HttpError 503 while a thread fills the broker from the log."""
    if state.unready in _NOT_YET:
        raise HttpError(503, f"{state.unready}: try again when /readyz answers 200")


def is_admin(state: DaemonState, request: Request) -> bool:
    """Whether the request has an admin key; False without any.

    Raises HttpError 401 for a key that is none, 403 when there are no admin keys.
    """
    given = request.headers.get(b"authorization")
    if given is None:
        return False
    if not len(state.admin_keys):
        raise forbidden()
    scheme, _, key = given.partition(b" ")
    found = state.admin_keys.authenticate(key.strip()) if scheme.lower() == b"bearer" else None
    if found is None:
        state.warn("admin key", "admin key refused", path=request.path)
        raise unauthorized(
            "the admin key is unknown; compare it with admin.allowed_keys of the daemon"
        )
    return True


def forbidden() -> HttpError:
    return HttpError(
        403, "no admin key is configured; set admin.allowed_keys, and reload or restart the daemon"
    )


def unauthorized(message: str) -> HttpError:
    return HttpError(401, message, [(b"www-authenticate", b"Bearer")])


def check_query(request: Request, *known: str) -> None:
    """Raises HttpError 400 for a parameter that has no meaning here."""
    for name in request.query:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise HttpError(400, f"unknown parameter {name!r}; expected {expected}")


def whole_number(text: object, name: str, least: int, most: int = _NUMBER_MAX) -> int:
    """Raises HttpError 400 for anything else."""
    number = text
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 20:
        number = int(text)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise HttpError(400, f"{name}: expected a whole number from {least} to {most}")
    return number


def limit_of(request: Request) -> int:
    return whole_number(request.query.get("limit", str(LIMIT)), "limit", 1, LIMIT_MAX)


def _by_backlog(request: Request) -> bool:
    order = request.query.get("order")
    if order not in (None, "backlog"):
        raise HttpError(400, "order: expected backlog, or none for the usual order")
    if order is not None and "after" in request.query:
        raise HttpError(400, "after: has no meaning with order=backlog")
    return order is not None


def topic_row(view: TopicView) -> dict[str, object]:
    return {**attrs.asdict(view, recurse=False), "backlog": _amount(view.backlog)}


def dead_letter_row(view: DeadLettersView) -> dict[str, object]:
    return {**attrs.asdict(view, recurse=False), "backlog": _amount(view.backlog)}


def subscription_row(view: SubscriptionView, *, admin: bool) -> dict[str, object]:
    """The owner only for who may know of clients."""
    row = {**attrs.asdict(view, recurse=False), "backlog": _amount(view.backlog)}
    if not admin:
        del row["owner"]
    return row


def _amount(amount: Amount) -> dict[str, object]:
    return attrs.asdict(amount)


def connection_row(connection: Connection, *, admin: bool) -> dict[str, object]:
    """Address and key id only for who may know of clients."""
    view = attrs.asdict(connection.session.view())
    owner = view.pop("owner")
    row: dict[str, object] = {"id": connection.id, **view}
    return {**row, "peer": connection.peer, "owner": owner} if admin else row


def _next(paged: Paged[Any], key: Callable[[Any], object]) -> object:
    return key(paged.rows[-1]) if paged.more else None


@attrs.frozen(eq=False)
class ReadApi:
    """Answers what changes nothing."""

    state: DaemonState
    started: float

    async def overview(self, request: Request) -> Response:
        """The counts of the whole broker."""
        check_query(request)
        is_admin(self.state, request)
        counts = attrs.asdict(self.state.stats)
        for name in ("published", "delivered"):
            counts[name] = {f"qos{qos}": count for qos, count in enumerate(counts[name])}
        return json_response(
            {
                "version": version("blipmq"),
                "ready": self.state.unready is None,
                "reason": self.state.unready,
                "uptime_seconds": trio.current_time() - self.started,
                "admin": len(self.state.admin_keys) > 0,
                "counts": counts,
            }
        )

    async def topics(self, request: Request) -> Response:
        require_broker(self.state)
        check_query(request, "limit", "after", "order", "contains")
        is_admin(self.state, request)
        paged = await finished(
            self.state.broker.overview.topic_page(_name_page(request), trio.current_time())
        )
        rows = [topic_row(row) for row in paged.rows]
        by_name = "order" not in request.query
        last = _next(paged, lambda row: row.topic) if by_name else None
        return json_response({"topics": rows, "next": last})

    async def dead_letters(self, request: Request) -> Response:
        require_broker(self.state)
        check_query(request, "limit", "after", "order", "contains")
        is_admin(self.state, request)
        page = _name_page(request)
        if page.after is not None:
            page = attrs.evolve(page, after=f"$dead.{page.after}")
        paged = await finished(
            self.state.broker.overview.dead_letter_page(page, trio.current_time())
        )
        rows = [dead_letter_row(row) for row in paged.rows]
        by_name = "order" not in request.query
        last = _next(paged, lambda row: row.topic) if by_name else None
        return json_response({"dead_letters": rows, "next": last})

    async def subscriptions(self, request: Request) -> Response:
        require_broker(self.state)
        check_query(request, "limit", "after", "order", "topic")
        admin = is_admin(self.state, request)
        by_backlog = _by_backlog(request)
        paged = await finished(
            self.state.broker.overview.subscription_page(
                Page(limit_of(request), _after_number(request), by_backlog),
                trio.current_time(),
                request.query.get("topic"),
            )
        )
        rows = [subscription_row(row, admin=admin) for row in paged.rows]
        last = None if by_backlog else _next(paged, lambda row: row.id)
        return json_response({"subscriptions": rows, "next": last})

    async def subscription(self, request: Request) -> Response:
        require_broker(self.state)
        check_query(request)
        admin = is_admin(self.state, request)
        id_ = whole_number(request.parameters[0], "id", 1)
        found = await finished(self.state.broker.overview.subscription(id_, trio.current_time()))
        if found is None:
            raise HttpError(404, f"there is no subscription {id_}")
        return json_response(subscription_row(found, admin=admin))

    async def connections(self, request: Request) -> Response:
        check_query(request, "limit", "after")
        admin = is_admin(self.state, request)
        limit, after = limit_of(request), _after_number(request) or 0
        found = _first(self.state.connections, after, limit + 1)
        rows = [connection_row(connection, admin=admin) for connection in found[:limit]]
        last = found[limit - 1].id if len(found) > limit else None
        return json_response({"connections": rows, "next": last})


def _first(connections: Iterable[Connection], after: int, limit: int) -> list[Connection]:
    later = (connection for connection in connections if connection.id > after)
    return nsmallest(limit, later, key=lambda connection: connection.id)


def _name_page(request: Request) -> Page[str]:
    query = request.query
    return Page(
        limit_of(request), query.get("after"), _by_backlog(request), query.get("contains", "")
    )


def _after_number(request: Request) -> int | None:
    after = request.query.get("after")
    return None if after is None else whole_number(after, "after", 0)


def read_routes(state: DaemonState) -> Routes:
    """What anybody may ask who reaches the address."""
    api = ReadApi(state, trio.current_time())
    handlers: dict[str, Handler] = {
        "/overview": api.overview,
        "/topics": api.topics,
        "/subscriptions": api.subscriptions,
        "/subscriptions/{}": api.subscription,
        "/connections": api.connections,
        "/dead-letters": api.dead_letters,
    }
    return {PREFIX + path: {"GET": handler} for path, handler in handlers.items()}
