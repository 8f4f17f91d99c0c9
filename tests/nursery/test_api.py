"""The JSON API of a daemon: what it tells, what it changes, and whom it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.stats import DropReason
from blipmq.client.client import Client, connect_stream
from blipmq.config import AdminSettings
from blipmq.nursery.admin import LOG_SECONDS
from blipmq.nursery.http_app import BODY_BYTES_MAX
from tests.nursery.asking import ADMIN_KEY, Answer, ask
from tests.nursery.daemon import Daemon, new_disk, serving
from tests.peer import KEY

ADMIN = AdminSettings((ADMIN_KEY,))
READ = ("overview", "topics", "subscriptions", "connections", "dead-letters")
CHANGES = {
    "POST topics/purge": {"topic": "t"},
    "POST subscriptions/1/purge": {},
    "DELETE subscriptions/1": None,
    "POST dead-letters/resend": {"topic": "t"},
    "POST dead-letters/drop": {"topic": "t"},
    "GET dead-letters/messages": None,
}


async def get(daemon: Daemon, path: str, key: str | None = None) -> Answer:
    return await ask(daemon.app, f"/api/v1/{path}", key=key)


async def post(daemon: Daemon, path: str, body: object, key: str | None = ADMIN_KEY) -> Answer:
    return await ask(daemon.app, f"/api/v1/{path}", "POST", body=body, key=key)


_drawn = count(1)


@asynccontextmanager
async def client(daemon: Daemon) -> AsyncIterator[Client]:
    stream = daemon.connect().stream
    async with connect_stream(
        stream, api_key=KEY, entropy=lambda size: next(_drawn).to_bytes(size, "big")
    ) as connected:
        yield connected


async def reject(connected: Client, topic: str, *bodies: bytes) -> None:
    """Have these messages in the dead letters of the topic."""
    async with connected.subscribe(topic, name="worker") as subscription:
        for body in bodies:
            await connected.publish(topic, body, headers={"h": b"v"})
        for _ in bodies:
            await (await subscription.receive()).reject()
    await connected.ping()
    await trio.sleep(1)  # until the settlements are in the log


async def letters(daemon: Daemon, query: str = "topic=t") -> list[dict[str, Any]]:
    answer = await get(daemon, f"dead-letters/messages?{query}", ADMIN_KEY)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json["messages"]
    return found


# What there is


async def test_the_overview_counts_what_happened(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.publish("t", b"a")
        await trio.sleep(3)
        overview = (await get(daemon, "overview")).json
    assert (overview["ready"], overview["reason"], overview["admin"]) == (True, None, False)
    assert overview["uptime_seconds"] == 3
    assert overview["counts"]["published"] == {"qos0": 0, "qos1": 1}
    assert overview["counts"]["connections"] == 1


async def test_topics_come_in_pages(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        for topic in ("b", "a", "c d/é"):
            await peer.publish(topic, b"x")
        first = (await get(daemon, "topics?limit=2")).json
        rest = (await get(daemon, f"topics?limit=2&after={first['next']}")).json
        found = (await get(daemon, "topics?contains=d%2F%C3%A9")).json
    assert ([row["topic"] for row in first["topics"]], first["next"]) == (["a", "b"], "b")
    assert ([row["topic"] for row in rest["topics"]], rest["next"]) == (["c d/é"], None)
    assert [row["topic"] for row in found["topics"]] == ["c d/é"]
    assert rest["topics"][0]["kept_messages"] == rest["topics"][0]["backlog"]["messages"] == 1


async def test_the_largest_backlogs_come_first_when_asked(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        for topic, messages in (("a", 1), ("b", 3), ("c", 2)):
            await peer.subscribe(topic)
            await peer.publish(topic, *[b"x"] * messages)
        topics = (await get(daemon, "topics?order=backlog&limit=2")).json
        subscriptions = (await get(daemon, "subscriptions?order=backlog&limit=1")).json
    assert [row["topic"] for row in topics["topics"]] == ["b", "c"]
    assert [row["topic"] for row in subscriptions["subscriptions"]] == ["b"]
    assert topics["next"] is subscriptions["next"] is None


async def test_who_a_client_is_shows_with_the_admin_key_alone(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon:
        peer = await daemon.client()
        id_ = await peer.subscribe("t")
        for path, of_clients in (("subscriptions", {"owner"}), ("connections", {"owner", "peer"})):
            (row,) = (await get(daemon, path)).json[path]
            (more,) = (await get(daemon, path, ADMIN_KEY)).json[path]
            assert more.keys() - row.keys() == of_clients
            assert len(more["owner"]) == 32
        one = (await get(daemon, f"subscriptions/{id_}")).json
    assert (one["id"], one["kind"], one["members"]) == (id_, "version 1", 1)


async def test_connections_come_in_pages(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peers = [await daemon.client() for _ in range(3)]
        await peers[0].aclose()
        await wait_all_tasks_blocked()
        first = (await get(daemon, "connections?limit=1")).json
        rest = (await get(daemon, f"connections?after={first['next']}")).json
    assert [row["id"] for row in first["connections"] + rest["connections"]] == [2, 3]
    assert (rest["connections"][0]["version"], rest["next"]) == (1, None)


async def test_dead_letters_are_summed_up_without_a_key(autojump_clock: MockClock) -> None:
    async with serving() as daemon, client(daemon) as connected:
        await reject(connected, "t", b"secret", b"secret")
        answer = await get(daemon, "dead-letters")
        same = await get(daemon, "dead-letters?contains=dead")
    (row,) = answer.json["dead_letters"]
    assert (row["topic"], row["backlog"]["messages"]) == ("t", 2)
    assert b"secret" not in answer.body
    assert same.json["dead_letters"] == []


async def test_a_long_list_lets_others_have_their_turns(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.publish("t", b"a")
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        topics = daemon.state.broker.overview.topics
        for number in range(20_000):
            topics.make(b"t%d" % number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            assert (await get(daemon, "topics?limit=1")).json["next"] == "t"
            nursery.cancel_scope.cancel()
    assert turns >= 10


# Whom it refuses


@pytest.mark.parametrize("request_", CHANGES)
async def test_changes_are_off_without_admin_keys(autojump_clock: MockClock, request_: str) -> None:
    method, path = request_.split()
    async with serving() as daemon:
        answer = await ask(
            daemon.app, f"/api/v1/{path}", method, body=CHANGES[request_], key=ADMIN_KEY
        )
    assert answer.error == (
        403,
        "no admin key is configured; set admin.allowed_keys, and reload or restart the daemon",
    )


@pytest.mark.parametrize("request_", CHANGES)
async def test_changes_need_the_admin_key(autojump_clock: MockClock, request_: str) -> None:
    method, path = request_.split()
    async with serving(admin=ADMIN) as daemon:
        for authorization in (
            None,
            b"",
            b"Bearer",
            b"Bearer x",
            b"Bearer \xff",
            b"Basic " + ADMIN_KEY.encode(),
            b"Bearer " + KEY.encode(),
        ):
            answer = await ask(
                daemon.app,
                f"/api/v1/{path}",
                method,
                body=CHANGES[request_],
                authorization=authorization,
            )
            assert answer.status == 401
            assert "admin key" in answer.error[1]
            assert answer.headers[b"www-authenticate"] == b"Bearer"


@pytest.mark.parametrize("path", READ)
async def test_a_wrong_admin_key_is_refused_where_none_is_needed(
    autojump_clock: MockClock, path: str
) -> None:
    async with serving(admin=ADMIN) as daemon:
        assert (await get(daemon, path, "wrong")).status == 401
        assert (await get(daemon, path)).status == 200
        assert "admin key refused" in daemon.events()
        assert ADMIN_KEY not in str(daemon.lines)
    async with serving() as daemon:
        assert (await get(daemon, path, "wrong")).status == 403


@pytest.mark.parametrize("path", READ)
async def test_what_is_read_is_not_written(autojump_clock: MockClock, path: str) -> None:
    async with serving() as daemon:
        answer = await ask(daemon.app, f"/api/v1/{path}", "POST")
        assert answer.error == (405, "method not allowed")
        assert answer.headers[b"allow"] == b"GET, HEAD"
        assert (await ask(daemon.app, f"/api/v1/{path}", "HEAD")).body == b""


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("topics?limit=0", "limit: expected a whole number from 1 to 1000"),
        ("topics?limit=1001", "limit: expected a whole number from 1 to 1000"),
        ("topics?limit=many", "limit: expected a whole number from 1 to 1000"),
        ("topics?limit=" + "9" * 10_000, "limit: expected a whole number from 1 to 1000"),
        ("topics?lmit=1", "unknown parameter 'lmit'; expected limit, after, order, contains"),
        ("topics?order=size", "order: expected backlog, or none for the usual order"),
        ("topics?order=backlog&after=a", "after: has no meaning with order=backlog"),
        ("overview?x=", "unknown parameter 'x'; expected none"),
        ("connections?after=-1", "after: expected a whole number from 0 to 18446744073709551615"),
        ("connections?order=backlog", "unknown parameter 'order'; expected limit, after"),
        ("subscriptions?after=a", "after: expected a whole number from 0 to 18446744073709551615"),
        ("subscriptions/x", "id: expected a whole number from 1 to 18446744073709551615"),
        ("dead-letters?limit=%00", "limit: expected a whole number from 1 to 1000"),
    ],
)
async def test_a_bad_parameter_is_400(autojump_clock: MockClock, path: str, message: str) -> None:
    async with serving() as daemon:
        assert (await get(daemon, path)).error == (400, message)


async def test_what_does_not_exist_is_404(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon:
        assert (await get(daemon, "nothing")).error == (404, "not found")
        assert (await get(daemon, "subscriptions/7")).error == (404, "there is no subscription 7")
        for path in ("resend", "drop"):
            answer = await post(daemon, f"dead-letters/{path}", {"topic": "\ud800"})
            assert answer.status == 404
        answer = await post(daemon, "topics/purge", {"topic": "nothing"})
        assert answer.error == (404, "there is no topic 'nothing'")
        assert (await post(daemon, "subscriptions/7/purge", {})).status == 404
        answer = await ask(daemon.app, "/api/v1/subscriptions/7", "DELETE", key=ADMIN_KEY)
        assert answer.status == 404


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("topics/purge", b"{", "the body is not JSON"),
        ("topics/purge", b"\xff", "the body is not JSON"),
        ("topics/purge", b"[" * 60_000, "the body is not JSON"),
        ("topics/purge", [], "expected a JSON object as the body"),
        ("topics/purge", {}, "topic: expected a name that is not empty"),
        ("topics/purge", {"topic": ""}, "topic: expected a name that is not empty"),
        ("topics/purge", {"topic": 7}, "topic: expected a name that is not empty"),
        ("topics/purge", {"topic": "t", "all": 1}, "unknown field 'all'; expected topic"),
        ("subscriptions/0/purge", {}, "id: expected a whole number from 1"),
        ("subscriptions/1/purge", {"topic": "t"}, "unknown field 'topic'; expected none"),
        ("dead-letters/drop", {"topic": "t", "numbers": []}, "numbers: expected a list of 1 to"),
        ("dead-letters/drop", {"topic": "t", "numbers": [True]}, "numbers: expected a whole"),
        ("dead-letters/drop", {"topic": "t", "numbers": 1}, "numbers: expected a list of 1 to"),
        ("dead-letters/resend", {"topic": "t", "limit": 0}, "limit: expected a whole number"),
        ("dead-letters/resend", {"topic": "t", "subscription": "x"}, "subscription: expected"),
    ],
)
async def test_a_bad_body_is_400(
    autojump_clock: MockClock, path: str, body: object, message: str
) -> None:
    async with serving(admin=ADMIN) as daemon:
        status, said = (await post(daemon, path, body)).error
    assert status == 400
    assert said.startswith(message)


async def test_a_body_that_is_too_long_is_413(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon:
        answer = await post(daemon, "topics/purge", bytes(BODY_BYTES_MAX + 1))
    assert answer.error == (413, f"the body is longer than {BODY_BYTES_MAX} bytes")


async def test_while_the_log_is_read_there_is_nothing_to_tell(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon:
        daemon.state.unready = "recovering"
        for path in ("topics", "subscriptions", "dead-letters", "subscriptions/1"):
            assert (await get(daemon, path)).status == 503
        assert (await post(daemon, "topics/purge", {"topic": "t"})).status == 503
        assert (await get(daemon, "overview")).json["reason"] == "recovering"


async def test_nothing_is_changed_while_it_shuts_down(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon:
        peer = await daemon.client()
        await peer.publish("t", b"a")
        daemon.state.unready = "draining"
        answer = await post(daemon, "topics/purge", {"topic": "t"})
        assert answer.error == (503, "draining: nothing is changed any more")
        assert daemon.stats.kept_messages == 1


# What it changes


async def test_a_purge_is_answered_when_it_is_in_the_log(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon:
        peer = await daemon.client()
        id_ = await peer.subscribe("t")
        await peer.publish("t", b"a", b"b")
        daemon.runner.hold()
        answers = []

        async def purge() -> None:
            answers.append(await post(daemon, "topics/purge", {"topic": "t"}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(purge)
            await wait_all_tasks_blocked()
            assert answers == []
            daemon.runner.release()
        assert answers[0].json == {"purged": 2}
        assert daemon.stats.dropped[DropReason.PURGED] == 2
        assert await peer.poll(id_) == []
        assert {"event": "purged", "topic": "t", "messages": 2, "log_level": "info"} in daemon.lines
        disk = daemon.disk
    async with serving(disk=disk.after_kill(), admin=ADMIN) as daemon:
        peer = await daemon.client()
        assert await peer.poll(await peer.subscribe("t")) == []


async def test_a_log_that_does_not_keep_up_is_503(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon:
        peer = await daemon.client()
        await peer.publish("t", b"a")
        daemon.runner.hold()
        started = trio.current_time()
        status, message = (await post(daemon, "topics/purge", {"topic": "t"})).error
        assert (status, trio.current_time() - started) == (503, LOG_SECONDS)
        assert "look again" in message
        daemon.runner.release()


async def test_one_subscription_is_purged_and_deleted(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon, client(daemon) as connected:
        for name in ("one", "two"):
            async with connected.subscribe("t", name=name):
                pass
        await connected.publish("t", b"a")
        rows = (await get(daemon, "subscriptions")).json["subscriptions"]
        ids = {row["name"]: row["id"] for row in rows}
        assert (await post(daemon, f"subscriptions/{ids['one']}/purge", None)).json == {"purged": 1}
        path = f"/api/v1/subscriptions/{ids['two']}"
        answer = await ask(daemon.app, path, "DELETE", key=ADMIN_KEY)
        assert answer.json == {"dropped": 1}
        disk = daemon.disk
    async with serving(disk=disk.after_kill()) as daemon:
        (row,) = (await get(daemon, "subscriptions")).json["subscriptions"]
        assert (row["name"], row["backlog"]["messages"]) == ("one", 0)


async def test_a_connected_version_1_subscription_is_not_deleted(
    autojump_clock: MockClock,
) -> None:
    async with serving(admin=ADMIN) as daemon:
        id_ = await (await daemon.client()).subscribe("t")
        answer = await ask(daemon.app, f"/api/v1/subscriptions/{id_}", "DELETE", key=ADMIN_KEY)
        assert answer.status == 409
        assert "its client is connected" in answer.error[1]


@pytest.mark.parametrize("wal_path", ["memory", ""])
async def test_dead_letters_are_looked_at_and_stay(
    autojump_clock: MockClock, wal_path: str
) -> None:
    async with serving(wal_path=wal_path, admin=ADMIN) as daemon, client(daemon) as connected:
        await reject(connected, "t", b"a", b"\xff")
        found = await letters(daemon)
        assert [row.get("body") for row in found] == ["a", None]
        assert found[1]["body_base64"] == "/w=="
        assert found[0]["properties"]["headers"] == [{"name": "h", "value": "v"}]
        assert found[0]["properties"]["dead_letter"]["subscription"] == "worker"
        assert await letters(daemon) == found
        page = await letters(daemon, f"topic=t&after={found[0]['number']}")
        assert page == found[1:]
        first = (await get(daemon, "dead-letters/messages?topic=t&limit=1", ADMIN_KEY)).json
        assert (len(first["messages"]), first["next"]) == (1, found[0]["number"])


async def test_a_long_body_is_cut(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon, client(daemon) as connected:
        await reject(connected, "t", b"x" * 100_000)
        (row,) = await letters(daemon)
    assert (row["bytes"], len(row["body"]), row["cut"]) == (100_000, 65_536, True)


@pytest.mark.parametrize("wal_path", ["memory", ""])
async def test_chosen_dead_letters_are_resent(autojump_clock: MockClock, wal_path: str) -> None:
    async with serving(wal_path=wal_path, admin=ADMIN) as daemon, client(daemon) as connected:
        await reject(connected, "t", b"a", b"b", b"c")
        numbers = [row["number"] for row in await letters(daemon)]
        body = {"topic": "t", "numbers": [numbers[1], 12345]}
        answer = (await post(daemon, "dead-letters/resend", body)).json
        assert answer == {"resent": [numbers[1]], "found": 1, "next": None}
        assert [row["body"] for row in await letters(daemon)] == ["a", "c"]
        async with connected.subscribe("t", name="worker") as subscription:
            message = await subscription.receive()
            assert (message.body, message.dead_letter) == (b"b", None)
            assert message.headers == {"h": b"v"}


async def test_what_was_resent_is_not_lost_and_not_doubled_by_a_kill(
    autojump_clock: MockClock,
) -> None:
    async with serving(admin=ADMIN) as daemon, client(daemon) as connected:
        await reject(connected, "t", b"a", b"b")
        await post(daemon, "dead-letters/resend", {"topic": "t", "limit": 1})
        disk = daemon.disk
    async with serving(disk=disk.after_kill(), admin=ADMIN) as daemon, client(daemon) as connected:
        assert [row["body"] for row in await letters(daemon)] == ["b"]
        async with connected.subscribe("t", name="worker") as subscription:
            message = await subscription.receive()
            assert message.body == b"a"
            await message.accept()
        await connected.ping()
        (row,) = (await get(daemon, "subscriptions?topic=t")).json["subscriptions"]
        assert row["backlog"]["messages"] == 0


async def test_all_dead_letters_are_dropped_page_by_page(autojump_clock: MockClock) -> None:
    async with serving(admin=ADMIN) as daemon, client(daemon) as connected:
        await reject(connected, "t", b"a", b"b", b"c")
        first = (await post(daemon, "dead-letters/drop", {"topic": "t", "limit": 2})).json
        assert (len(first["dropped"]), first["found"]) == (2, 2)
        body = {"topic": "t", "after": first["next"]}
        rest = (await post(daemon, "dead-letters/drop", body)).json
        assert (len(rest["dropped"]), rest["next"]) == (1, None)
        assert (await post(daemon, "dead-letters/drop", {"topic": "t"})).status == 404
        assert (await get(daemon, "subscriptions?topic=$dead.t")).json["subscriptions"] == []


async def test_dead_letters_that_several_subscriptions_have_are_of_one_of_them(
    autojump_clock: MockClock,
) -> None:
    async with serving(admin=ADMIN) as daemon, client(daemon) as connected:
        for name in ("x", "y"):
            async with connected.subscribe("$dead.t", name=name):
                pass
        await reject(connected, "t", b"a")
        answer = await get(daemon, "dead-letters/messages?topic=t", ADMIN_KEY)
        assert answer.status == 409
        assert "say which" in answer.error[1]
        rows = (await get(daemon, "subscriptions?topic=$dead.t")).json["subscriptions"]
        query = f"topic=t&subscription={rows[0]['id']}"
        assert [row["body"] for row in await letters(daemon, query)] == ["a"]


async def test_a_full_disk_takes_a_purge_from_its_reserve(autojump_clock: MockClock) -> None:
    disk = new_disk()
    disk.capacity = 64 * 1024
    async with serving(disk=disk, admin=ADMIN) as daemon:
        peer = await daemon.client()
        await peer.subscribe("t")
        await peer.publish("t", b"a", b"b")
        disk.capacity = disk.used
        assert await peer.publish("t", b"no room") != []
        assert (await post(daemon, "topics/purge", {"topic": "t"})).json == {"purged": 2}
    async with serving(disk=disk.after_kill(), admin=ADMIN) as daemon:
        peer = await daemon.client()
        assert await peer.poll(await peer.subscribe("t")) == []
