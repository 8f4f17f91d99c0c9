"""The part of the JSON API that takes an admin key: dead letters as they are, and all changes.

A request that changes something is answered when that is in the log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import trio

from blipmq.broker.operator import Conflict, Letter, Letters, Missing
from blipmq.broker.overview import Steps
from blipmq.errors import LogError, Refused
from blipmq.nursery.api import (
    LIMIT_MAX,
    PREFIX,
    check_query,
    forbidden,
    is_admin,
    limit_of,
    require_broker,
    unauthorized,
    whole_number,
)
from blipmq.nursery.http_app import Handler, HttpError, Request, Response, Routes, json_response
from blipmq.nursery.peek import Peek
from blipmq.nursery.state import DaemonState
from blipmq.protocol.json_properties import bytes_json, properties_json

BODY_BYTES_SHOWN: Final = 64 * 1024
"""Of a message's body; what is longer is cut."""
LOG_SECONDS: Final = 10.0
"""How long a request waits for the log."""

T = TypeVar("T")


def require_admin(state: DaemonState, request: Request) -> None:
    """Raises HttpError 401 without an admin key, or for a wrong one; 403 when there are none."""
    if not len(state.admin_keys):
        raise forbidden()
    if not is_admin(state, request):
        raise unauthorized("this needs an admin key, as `Authorization: Bearer KEY`")


@attrs.frozen(eq=False)
class AdminApi:
    """Answers who has an admin key."""

    state: DaemonState
    peek: Peek

    def _begin(self, request: Request, *query: str) -> None:
        require_admin(self.state, request)
        require_broker(self.state)
        check_query(request, *query)

    async def _change(self, change: Callable[[], T]) -> T:
        """Make a change in one step, and return when it is in the log.

        Raises HttpError 503 when that takes too long: it is made, and may yet be logged.
        """
        logged = trio.Event()
        with trio.move_on_after(LOG_SECONDS) as waiting:
            await self.state.reserve()
            try:
                self._check_open()
                result = change()
                self.state.broker.when_logged(logged.set)
            finally:
                self.state.hand_on(reserved=True, everything=True)
            await logged.wait()
            return result
        assert waiting.cancelled_caught
        raise HttpError(503, "the log does not keep up: look again what has been done")

    def _check_open(self) -> None:
        if self.state.unready is not None:
            raise HttpError(503, f"{self.state.unready}: nothing is changed any more")

    # Backlogs

    async def purge_topic(self, request: Request) -> Response:
        self._begin(request)
        fields = await _fields(request, "topic")
        name = _topic(fields)
        steps = self.state.broker.operator.purge_topic(name, trio.current_time())
        purged = await self._in_steps(steps)
        self.state.log.info("purged", topic=name, messages=purged)
        return json_response({"purged": purged})

    async def purge(self, request: Request) -> Response:
        self._begin(request)
        await _fields(request)
        id_ = whole_number(request.parameters[0], "id", 1)
        purged = await self._in_steps(self.state.broker.operator.purge(id_, trio.current_time()))
        self.state.log.info("purged", subscription=id_, messages=purged)
        return json_response({"purged": purged})

    async def _in_steps(self, steps: Steps[int]) -> int:
        """Each step is logged by itself; so it has a place in the log's queue."""
        while True:
            done = await self._change(lambda: _step(steps))
            if done is not None:
                return done

    async def delete(self, request: Request) -> Response:
        self._begin(request)
        id_ = whole_number(request.parameters[0], "id", 1)
        operator = self.state.broker.operator
        dropped = await self._change(lambda: operator.delete(id_, trio.current_time()))
        self.state.log.info("subscription deleted", subscription=id_, messages=dropped)
        return json_response({"dropped": dropped})

    # Dead letters

    async def messages(self, request: Request) -> Response:
        self._begin(request, "topic", "subscription", "after", "limit")
        limit = limit_of(request)
        after = whole_number(request.query.get("after", "0"), "after", 0)
        letters = self._letters(_topic(request.query), request.query.get("subscription"))
        found = await self.peek.read(letters, after + 1, limit)
        subscription = letters.subscription
        return json_response(
            {
                "messages": [_letter(letter) for letter in found.letters],
                "subscription": None if subscription is None else subscription.id,
                "next": None if found.next is None else found.next - 1,
            }
        )

    async def resend(self, request: Request) -> Response:
        return await self._with_letters(request, "resent")

    async def drop(self, request: Request) -> Response:
        return await self._with_letters(request, "dropped")

    async def _with_letters(self, request: Request, what: str) -> Response:
        """A page of what was asked for; `next` is where to go on, if there is more."""
        self._begin(request)
        fields = await _fields(request, "topic", "subscription", "numbers", "after", "limit")
        chosen = _numbers(fields)
        limit = whole_number(fields.get("limit", LIMIT_MAX), "limit", 1, LIMIT_MAX)
        after = whole_number(fields.get("after", 0), "after", 0)
        topic, subscription = _topic(fields), fields.get("subscription")
        letters = self._letters(topic, subscription)
        found = await self.peek.read(letters, after + 1, limit, chosen)
        operator = self.state.broker.operator

        def change() -> list[int]:
            # While they were read they may have gone elsewhere.
            now, letters = trio.current_time(), self._letters(topic, subscription)
            if what == "resent":
                return operator.resend(letters, found.letters, now)
            return operator.drop(letters, [letter.number for letter in found.letters], now)

        done = await self._change(change) if found.letters else []
        operator.tidy(letters)
        self.state.look()
        self.state.log.info("dead letters", topic=topic, **{what: len(done)})
        next_ = None if found.next is None else found.next - 1
        return json_response({what: done, "found": len(found.letters), "next": next_})

    def _letters(self, topic: str, subscription: object) -> Letters:
        id_ = None if subscription is None else whole_number(subscription, "subscription", 1)
        return self.state.broker.operator.letters(topic, id_)


def _step(steps: Steps[int]) -> int | None:
    """The result, if that was the last step."""
    try:
        next(steps)
    except StopIteration as end:
        result: int = end.value
        return result
    return None


def _letter(letter: Letter) -> dict[str, object]:
    run, index = letter.run, letter.index
    body = run.body(index)
    row: dict[str, object] = {
        "number": letter.number,
        "time_ms": letter.time_ms,
        "bytes": len(body),
        **bytes_json("body", body[:BODY_BYTES_SHOWN]),
        "properties": properties_json(run.properties(index)),
    }
    return row if len(body) <= BODY_BYTES_SHOWN else {**row, "cut": True}


async def _fields(request: Request, *known: str) -> dict[str, object]:
    """The JSON object in the body; an empty body is an empty object. Raises HttpError 400."""
    body = await request.body()
    try:
        fields = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise HttpError(400, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise HttpError(400, "expected a JSON object as the body")
    for name in fields:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise HttpError(400, f"unknown field {name!r}; expected {expected}")
    return fields


def _topic(fields: object) -> str:
    topic = fields.get("topic") if isinstance(fields, dict) else None
    if not isinstance(topic, str) or not topic:
        raise HttpError(400, "topic: expected a name that is not empty")
    return topic


def _numbers(fields: dict[str, object]) -> list[int] | None:
    numbers = fields.get("numbers")
    if numbers is None:
        return None
    if not isinstance(numbers, list) or not 0 < len(numbers) <= LIMIT_MAX:
        raise HttpError(400, f"numbers: expected a list of 1 to {LIMIT_MAX} numbers")
    return [whole_number(number, "numbers", 1) for number in numbers]


def _answering(handler: Handler) -> Handler:
    """What the broker refuses, as HTTP has it."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Missing as error:
            raise HttpError(404, str(error)) from None
        except Conflict as error:
            raise HttpError(409, str(error)) from None
        except Refused as error:
            raise HttpError(error.code, error.message) from None
        except LogError as error:
            raise HttpError(500, f"the log cannot be read: {error}") from None

    return answer


def admin_routes(state: DaemonState) -> Routes:
    """What takes an admin key."""
    api = AdminApi(state, Peek(state))
    routes: dict[str, tuple[str, Handler]] = {
        "/topics/purge": ("POST", api.purge_topic),
        "/subscriptions/{}/purge": ("POST", api.purge),
        "/subscriptions/{}": ("DELETE", api.delete),
        "/dead-letters/messages": ("GET", api.messages),
        "/dead-letters/resend": ("POST", api.resend),
        "/dead-letters/drop": ("POST", api.drop),
    }
    return {PREFIX + path: {method: _answering(each)} for path, (method, each) in routes.items()}
