"""`blipmq topics`, `subs`, `connections`, `top`: what they show, and whom they cannot ask."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from blipmq.cli import statuses
from blipmq.cli.api import Api, ApiResponse, ApiUnreachable, http_fetch
from blipmq.cli.outside import Outside
from blipmq.cli.rates import Sample, rates
from blipmq.cli.target import Target
from blipmq.cli.top import Watching
from tests.cli.shell import Shell

LISTS = ["topics", "subs", "connections", "dead list", "top --once"]


async def test_topics_are_listed(shell: Shell, autojump_clock: MockClock) -> None:
    await shell("pub", "orders", stdin=b"a\nb")
    await shell("pub", "other", "c")
    assert await shell("topics", "--json") == 0
    assert [(row["topic"], row["kept_messages"]) for row in shell.lines] == [
        ("orders", 2),
        ("other", 1),
    ]
    assert await shell("topics", "--contains", "ord") == 0
    assert "orders" in shell.out
    assert "other" not in shell.out
    assert await shell("topics", "--by-backlog", "--limit", 1, "--json") == 0
    assert [row["topic"] for row in shell.lines] == ["orders"]


async def test_a_long_list_is_asked_for_page_by_page(
    shell: Shell, autojump_clock: MockClock
) -> None:
    for number in range(1_200):
        shell.daemon.state.broker.overview.topics.make(b"t%04d" % number)
    assert await shell("topics", "--json") == 0
    assert len(shell.lines) == 1_200
    assert len(shell.asked) == 3
    assert await shell("topics", "--json", "--limit", 700) == 0
    assert len(shell.lines) == 700


async def test_a_name_cannot_break_the_table(shell: Shell, autojump_clock: MockClock) -> None:
    await shell("pub", "a\n\x1b[31m[bold]", "x")
    assert await shell("topics") == 0
    assert "\x1b" not in shell.out
    assert r"\n\x1b[31m[bold]" in shell.out


async def test_subscriptions_are_listed(shell: Shell, autojump_clock: MockClock) -> None:
    async with shell.client() as client, client.subscribe("t", name="n", prefetch=1):
        await shell("pub", "t", stdin=b"a\nb")
        assert await shell("subs") == 0
        assert "slow" in shell.out
        assert await shell("subs", "--json", "--topic", "t") == 0
        (row,) = shell.lines
        assert (row["name"], row["slow"], row["backlog"]["messages"]) == ("n", True, 2)
        assert await shell("subs", "--json", "--topic", "u") == 0
        assert shell.lines == []


async def test_connections_show_addresses_to_an_admin(
    shell: Shell, autojump_clock: MockClock
) -> None:
    async with shell.client():
        assert await shell("connections", "--json") == 0
        assert shell.lines[0]["version"] == 2
        assert shell.lines[0]["peer"] is not None
        shell.set(BLIPMQ_CLIENT_ADMIN_KEY="")
        assert await shell("connections", "--json") == 0
        assert shell.lines[0]["peer"] is None
        assert await shell("connections") == 0


async def test_top_shows_rates_once(shell: Shell, autojump_clock: MockClock) -> None:
    await shell("pub", "orders", "a")
    assert await shell("top", "--once", "--json", "--interval", 2) == 0
    (view,) = shell.lines
    assert view["rates"]["published"] == 0
    assert view["topics"][0]["published_rate"] == 0
    assert await shell("top", "--once", "--interval", 0) == 0
    assert "orders" in shell.out
    assert "ready" in shell.out


async def test_top_goes_on_while_the_daemon_is_away(
    shell: Shell, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = Outside(fetch=shell.fetch_in_memory)
    watching = Watching(rows=5, interval=1.0, once=False, as_json=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watching.run, outside, Target())
        await trio.sleep(1.5)
        shell.reachable = False
        await trio.sleep(1)
        shell.reachable = True
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    shell.out = capsys.readouterr().out
    assert [view["error"] is None for view in shell.lines] == [True, True, False, True]
    assert "cannot be reached" in shell.lines[2]["error"]


def sample(at: float, uptime: float, published: int) -> Sample:
    return Sample(at, "1", True, uptime, {"published": {"qos1": published}}, (), ())


def test_rates_are_of_the_time_between_two_looks() -> None:
    assert rates(sample(10, 5, 100), sample(12, 7, 110)).counts["published"] == 5
    assert rates(None, sample(12, 7, 110)).counts["published"] is None


def test_a_daemon_that_began_anew_has_no_rates_yet() -> None:
    assert rates(sample(10, 500, 100), sample(12, 1, 110)).counts["published"] is None


@pytest.mark.parametrize("command", LISTS)
async def test_without_a_metrics_server_it_is_unreachable(
    shell: Shell, autojump_clock: MockClock, command: str
) -> None:
    shell.reachable = False
    assert await shell(*command.split()) == statuses.UNREACHABLE
    assert "http://broker:9100 cannot be reached" in shell.err
    assert "metrics_addr and metrics_port" in shell.err


@pytest.mark.parametrize("command", LISTS)
async def test_a_wrong_admin_key_is_not_permitted(
    shell: Shell, autojump_clock: MockClock, command: str
) -> None:
    shell.set(BLIPMQ_CLIENT_ADMIN_KEY="wrong")
    assert await shell(*command.split()) == statuses.NOT_PERMITTED
    assert "the admin key is unknown" in shell.err
    assert "give an admin key" in shell.err


@pytest.mark.parametrize(
    "response",
    [
        ApiResponse(200, b"<html>"),
        ApiResponse(200, b"[]"),
        ApiResponse(404, b"not found"),
        ApiResponse(200, b"{}"),
        ApiResponse(200, b'{"topics": [{"topic": 1}], "next": null}'),
        ApiResponse(200, b'{"topics": [7], "next": null}'),
        ApiResponse(500, b'{"error": 5}'),
    ],
)
async def test_who_is_no_daemon_is_told_apart(
    shell: Shell,
    autojump_clock: MockClock,
    response: ApiResponse,
) -> None:
    async def fetch(url: str, request: object) -> ApiResponse:
        return response

    shell.fetch = fetch
    assert await shell("topics") == statuses.UNREACHABLE
    assert "not as the API of a BlipMQ daemon" in shell.err


async def test_a_daemon_that_does_not_answer_is_given_up(
    shell: Shell, autojump_clock: MockClock
) -> None:
    async def fetch(url: str, request: object) -> ApiResponse:
        await trio.sleep_forever()

    shell.fetch = fetch
    assert await shell("topics") == statuses.UNREACHABLE
    assert "did not answer within 20 seconds" in shell.err


@pytest.mark.parametrize(
    "url",
    ["https://h", "http://", "h:9100", "http://h/x", "http://h?x=1", "http://u@h", "http://h:0"],
)
async def test_an_address_that_is_none_is_refused(
    shell: Shell, autojump_clock: MockClock, url: str
) -> None:
    assert await shell("topics", "--api", url) == statuses.UNUSABLE
    assert "expected http://HOST:PORT" in shell.err


@attrs.frozen
class Served:
    """What a server at a real socket says."""

    answer: bytes

    async def __call__(self, stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(self.answer)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r"])
async def test_who_speaks_no_http_is_unreachable(answer: bytes) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, Served(answer), 0, host="127.0.0.1")
        )
        host, port = listener.socket.getsockname()
        api = Api(f"http://{host}:{port}", None, http_fetch)
        with pytest.raises(ApiUnreachable, match="does not answer as HTTP, or hung up"):
            await api.get("/overview")
        nursery.cancel_scope.cancel()
