"""The metrics: what a scrape shows, the three paths, and HTTP clients that mean harm."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.typing import (
    ASGIReceiveEvent,
    ASGISendEvent,
    ConnectionState,
    LifespanScope,
    WebsocketScope,
)
from prometheus_client.parser import text_string_to_metric_families

from blipmq.broker.stats import NACK_CODES, Backlog, CloseReason, DropReason, Listener, Stats
from blipmq.errors import ConfigError, Refused, refusal
from blipmq.nursery.http_app import HttpApp
from blipmq.nursery.http_server import (
    CONNECTION_SECONDS,
    CONNECTIONS_MAX,
    REQUEST_SECONDS,
    HttpServer,
    serve_http,
)
from blipmq.nursery.metrics import LABEL_CHARACTERS, Metrics, metrics_routes
from tests.nursery.asking import Answer, ask

Series = tuple[str, frozenset[tuple[str, str]]]

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "metrics.md"

GET_METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


def make_metrics(
    stats: Stats | None = None,
    rows: Iterable[Backlog] = (),
    reason: str | None = None,
    max_labelled_subscriptions: int = 100,
) -> Metrics:
    return Metrics(
        Stats() if stats is None else stats,
        backlogs=lambda limit: rows,
        readiness=lambda: reason,
        max_labelled_subscriptions=max_labelled_subscriptions,
    )


def app_of(metrics: Metrics) -> HttpApp:
    return HttpApp(metrics_routes(metrics))


def backlog(
    subscription: str, topic: str, messages: int = 1, size: int = 10, age: float = 0.0
) -> Backlog:
    return Backlog(
        subscription=subscription,
        topic=topic,
        messages=messages,
        bytes=size,
        oldest_age_seconds=age,
    )


def scrape(metrics: Metrics) -> dict[Series, float]:
    """Every series by name and labels. Prometheus refuses a scrape in which one comes twice."""
    series: dict[Series, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series
            series[key] = sample.value
    return series


def key(name: str, **labels: str) -> Series:
    return (name, frozenset(labels.items()))


async def never_receive() -> ASGIReceiveEvent:
    raise AssertionError("the body of a request is of no interest")


async def request(metrics: Metrics, path: str, method: str = "GET") -> Answer:
    return await ask(app_of(metrics), path, method)


def test_every_counter_is_there_from_the_start_at_zero() -> None:
    series = scrape(make_metrics())
    names = [
        "topics", "subscriptions", "subscriptions_parked", "connections", "messages_inflight",
        "memory_bytes", "messages_redelivered_total", "messages_expired_total",
        "auth_failures_total", "framing_errors_total",
        "log_lines_suppressed_total", "wal_appends_total", "wal_bytes_total", "wal_segments",
        "wal_torn_tails_total", "wal_replayed_messages_total", "wal_fsync_seconds_count",
    ]  # fmt: skip
    expected = [key(f"blipmq_{name}") for name in names]
    for qos in ("0", "1"):
        expected.append(key("blipmq_messages_published_total", qos=qos))
        expected.append(key("blipmq_messages_delivered_total", qos=qos))
    expected += [key("blipmq_messages_dropped_total", reason=reason) for reason in DropReason]
    expected += [key("blipmq_connections_refused_total", reason=reason) for reason in CloseReason]
    expected += [key("blipmq_nack_total", code=str(code)) for code in NACK_CODES]
    assert {name: series.get(name) for name in expected} == dict.fromkeys(expected, 0.0)


def test_every_number_of_the_stats_is_shown_under_its_own_name() -> None:
    stats = Stats(
        topics=1,
        subscriptions=2,
        subscriptions_parked=3,
        connections=4,
        inflight=5,
        memory_bytes=6,
        published=[7, 8],
        delivered=[9, 10],
        redelivered=11,
        expired=12,
        auth_failures=14,
        framing_errors=15,
        log_lines_suppressed=16,
        trace_spans_dropped=27,
        trace_spans_failed=28,
        wal_appends=17,
        wal_bytes=18,
        wal_segments=19,
        wal_torn_tails=20,
        wal_replayed_messages=21,
    )
    stats.dropped[DropReason.KEPT] += 22
    stats.nacks[404] += 23
    stats.connections_refused[CloseReason.LIMIT] += 24
    stats.connections_by_listener[Listener.TLS] += 25
    stats.connections_accepted[Listener.WEBSOCKET] += 26
    shown = {
        name.removeprefix("blipmq_") + "".join(f" {value}" for _, value in labels): count
        for (name, labels), count in scrape(make_metrics(stats)).items()
        if name.startswith("blipmq_") and count != 0 and "fsync" not in name
    }
    assert shown == {
        "topics": 1,
        "subscriptions": 2,
        "subscriptions_parked": 3,
        "connections": 4,
        "messages_inflight": 5,
        "memory_bytes": 6,
        "messages_published_total 0": 7,
        "messages_published_total 1": 8,
        "messages_delivered_total 0": 9,
        "messages_delivered_total 1": 10,
        "messages_redelivered_total": 11,
        "messages_expired_total": 12,
        "auth_failures_total": 14,
        "framing_errors_total": 15,
        "log_lines_suppressed_total": 16,
        "trace_spans_dropped_total": 27,
        "trace_spans_failed_total": 28,
        "wal_appends_total": 17,
        "wal_bytes_total": 18,
        "wal_segments": 19,
        "wal_torn_tails_total": 20,
        "wal_replayed_messages_total": 21,
        "messages_dropped_total kept": 22,
        "nack_total 404": 23,
        "connections_refused_total limit": 24,
        "connections_by_listener tls": 25,
        "connections_accepted_total websocket": 26,
    }


def test_a_scrape_shows_what_was_counted_since_the_last_one() -> None:
    stats = Stats()
    metrics = make_metrics(stats)
    scrape(metrics)
    stats.published[1] += 3
    assert scrape(metrics)[key("blipmq_messages_published_total", qos="1")] == 3


def test_the_nack_codes_are_those_that_have_an_error_class() -> None:
    assert [code for code in range(1000) if type(refusal(code, "")) is not Refused] == list(
        NACK_CODES
    )


def test_the_documentation_lists_every_metric_and_every_reason() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|", DOCUMENTATION.read_text(), re.MULTILINE)
    listed = {row for row in rows if row.startswith("blipmq_")}
    exposed = {
        line.split()[2]
        for line in make_metrics().render().decode().splitlines()
        if line.startswith("# TYPE blipmq_") and not line.split()[2].endswith("_created")
    }
    assert listed == exposed
    assert set(rows) - listed == {*DropReason, *CloseReason}


def test_an_fsync_falls_into_the_bucket_of_its_duration() -> None:
    metrics = make_metrics()
    metrics.observe_fsync(0.00015)
    metrics.observe_fsync(3.0)
    series = scrape(metrics)
    buckets = {bound: series[key("blipmq_wal_fsync_seconds_bucket", le=bound)]
               for bound in ("5e-05", "0.0001", "0.0002", "2.0", "5.0", "+Inf")}  # fmt: skip
    assert buckets == {"5e-05": 0, "0.0001": 0, "0.0002": 1, "2.0": 1, "5.0": 2, "+Inf": 2}
    assert series[key("blipmq_wal_fsync_seconds_sum")] == pytest.approx(3.00015)


def test_two_daemons_of_one_process_do_not_share_metrics() -> None:
    first, second = make_metrics(), make_metrics()
    first.observe_fsync(0.001)
    assert scrape(second)[key("blipmq_wal_fsync_seconds_count")] == 0


def test_a_subscription_shows_its_backlog_and_the_age_of_its_oldest_message() -> None:
    series = scrape(make_metrics(rows=[backlog("7", "demo", messages=3, size=300, age=1.5)]))
    labels = {"subscription": "7", "topic": "demo"}
    assert series[key("blipmq_subscription_backlog", **labels)] == 3
    assert series[key("blipmq_subscription_backlog_bytes", **labels)] == 300
    assert series[key("blipmq_subscription_oldest_seconds", **labels)] == 1.5


def test_subscriptions_beyond_the_limit_are_added_up_in_one_row() -> None:
    rows = [backlog(str(n), "demo", messages=n, size=10 * n, age=n) for n in range(1, 6)]
    series = scrape(make_metrics(rows=rows, max_labelled_subscriptions=2))
    backlogs = {
        dict(labels)["subscription"]: count
        for (name, labels), count in series.items()
        if name == "blipmq_subscription_backlog"
    }
    assert backlogs == {"1": 1, "2": 2, "rest": 3 + 4 + 5}
    rest = {"subscription": "rest", "topic": ""}
    assert series[key("blipmq_subscription_backlog_bytes", **rest)] == 30 + 40 + 50
    assert series[key("blipmq_subscription_oldest_seconds", **rest)] == 5


def test_the_broker_is_asked_for_no_more_rows_than_get_labels() -> None:
    asked: list[int] = []

    def backlogs(limit: int) -> Sequence[Backlog]:
        asked.append(limit)
        return ()

    metrics = Metrics(Stats(), backlogs, readiness=lambda: None, max_labelled_subscriptions=17)
    metrics.render()
    assert asked == [17]


@pytest.mark.parametrize(
    "topic",
    ['"} 1\nblipmq_topics 99', "back\\slash", "a\r\nb", "\u2028\x85\x00", "\ud800", "t" * 65_535],
)
def test_a_topic_cannot_break_out_of_its_label(topic: str) -> None:
    series = scrape(make_metrics(rows=[backlog("1", topic, messages=3)]))
    assert series[key("blipmq_topics")] == 0
    [shown] = [
        dict(labels)["topic"] for name, labels in series if name == "blipmq_subscription_backlog"
    ]
    assert len(shown) <= LABEL_CHARACTERS
    assert shown.isprintable()


def test_topics_whose_labels_are_cut_to_the_same_text_are_added_up() -> None:
    rows = [
        backlog("s", "t" * 1000 + "a", messages=1, age=5),
        backlog("s", "t" * 1000 + "b", messages=2, age=4),
    ]
    series = scrape(make_metrics(rows=rows))
    labels = {"subscription": "s", "topic": "t" * (LABEL_CHARACTERS - 1) + "…"}
    assert series[key("blipmq_subscription_backlog", **labels)] == 3
    assert series[key("blipmq_subscription_oldest_seconds", **labels)] == 5


def test_a_subscription_named_rest_is_not_taken_for_the_rest() -> None:
    rows = [backlog("rest", "demo", messages=1), backlog("2", "demo", messages=2)]
    series = scrape(make_metrics(rows=rows, max_labelled_subscriptions=1))
    assert series[key("blipmq_subscription_backlog", subscription="rest", topic="demo")] == 1
    assert series[key("blipmq_subscription_backlog", subscription="rest", topic="")] == 2


async def test_metrics_are_prometheus_text() -> None:
    reply = await request(make_metrics(), "/metrics")
    assert reply.status == 200
    assert reply.headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert reply.headers[b"content-length"] == b"%d" % len(reply.body)
    assert b"# TYPE blipmq_messages_published_total counter\n" in reply.body
    assert b"process_open_fds" in reply.body


async def test_healthz_is_200_even_when_the_daemon_is_not_ready() -> None:
    reply = await request(make_metrics(reason="draining"), "/healthz")
    assert (reply.status, reply.body) == (200, b"ok")


async def test_readyz_is_200_when_there_is_no_reason_against_it() -> None:
    reply = await request(make_metrics(), "/readyz")
    assert (reply.status, reply.body) == (200, b"ready")


@pytest.mark.parametrize("reason", ["starting", "draining", "log failed"])
async def test_readyz_is_503_and_says_why(reason: str) -> None:
    reply = await request(make_metrics(reason=reason), "/readyz")
    assert (reply.status, reply.body) == (503, reason.encode())


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/metrics/../readyz", ""])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_any_other_path_is_404(path: str, method: str) -> None:
    assert (await request(make_metrics(), path, method)).status == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_any_other_method_is_405_and_names_those_allowed(path: str, method: str) -> None:
    reply = await request(make_metrics(), path, method)
    assert reply.status == 405
    assert reply.headers[b"allow"] == b"GET, HEAD"


@pytest.mark.parametrize(
    ("path", "reason", "status"),
    [("/metrics", None, 200), ("/healthz", None, 200), ("/readyz", "draining", 503)],
)
async def test_head_is_get_without_the_body(path: str, reason: str | None, status: int) -> None:
    metrics = make_metrics(reason=reason)
    get = await request(metrics, path)
    head = await request(metrics, path, "HEAD")
    assert (head.status, head.body) == (status, b"")
    assert int(head.headers[b"content-length"]) > 0
    assert head.headers[b"content-type"] == get.headers[b"content-type"]


async def test_a_failing_scrape_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def backlogs(limit: int) -> Sequence[Backlog]:
        raise RuntimeError("a bug")

    metrics = Metrics(Stats(), backlogs, readiness=lambda: None, max_labelled_subscriptions=1)
    reply = await request(metrics, "/metrics")
    assert (reply.status, reply.body) == (500, b"internal error")
    assert "a bug" in caplog.text


async def test_the_app_follows_the_lifespan_of_its_server() -> None:
    send_event, receive_event = trio.open_memory_channel[ASGIReceiveEvent](2)
    sent: list[str] = []

    async def send(event: ASGISendEvent) -> None:
        sent.append(event["type"])

    scope: LifespanScope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    send_event.send_nowait({"type": "lifespan.startup"})
    send_event.send_nowait({"type": "lifespan.shutdown"})
    await app_of(make_metrics())(scope, receive_event.receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_refused() -> None:
    sent: list[str] = []

    async def send(event: ASGISendEvent) -> None:
        sent.append(event["type"])

    scope: WebsocketScope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/metrics",
        "raw_path": b"/metrics",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
        "subprotocols": [],
        "state": ConnectionState({}),
        "extensions": {},
    }
    await app_of(make_metrics())(scope, never_receive, send)
    assert sent == ["websocket.close"]


# Over real sockets.


async def read_all(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        pass  # closed before it read all that was sent
    return bytes(received)


async def fetch(address: tuple[str, int], head: bytes) -> bytes:
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(head)
        return await read_all(stream)


def make_server(metrics: Metrics) -> HttpServer:
    return HttpServer(ASGIWrapper(app_of(metrics)))


def stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = (trio.socket.from_stdlib_socket(end) for end in socket.socketpair())
    return trio.SocketStream(ours), trio.SocketStream(theirs)


async def exchange(server: HttpServer, data: bytes) -> bytes:
    """What one connection to the server answers to the data, until the server closes it."""
    client, served = stream_pair()
    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, served)
        await client.send_all(data)
        return await read_all(client)


async def test_it_reports_the_address_and_serves_there_until_cancelled() -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_http, app_of(make_metrics()), "127.0.0.1", 0)
        assert address[0] == "127.0.0.1"
        reply = await fetch(address, GET_METRICS)
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"\nblipmq_topics 0.0\n" in reply
        nursery.cancel_scope.cancel()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(*address)


async def test_it_serves_ipv6() -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_http, app_of(make_metrics()), "::1", 0)
        reply = await fetch(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert reply.endswith(b"\r\n\r\nok")
        nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_an_error_of_the_configuration() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"metrics_port: .* 127\.0\.0\.1:{port} \(.*in use"):
            await serve_http(app_of(make_metrics()), "127.0.0.1", port)


@pytest.mark.parametrize("addr", ["192.0.2.1", "no..host"])
async def test_an_address_not_of_this_machine_is_an_error_of_the_configuration(addr: str) -> None:
    with pytest.raises(ConfigError, match="metrics_addr"):
        await serve_http(app_of(make_metrics()), addr, 0)


async def test_a_connection_is_for_one_request(autojump_clock: trio.testing.MockClock) -> None:
    reply = await exchange(make_server(make_metrics()), GET_METRICS)
    assert b"\r\nconnection: close\r\n" in reply.lower()
    assert trio.current_time() < REQUEST_SECONDS


BAD_REQUESTS = {
    "no HTTP": b"\xff\x00\r\n\r\n",
    "no end of headers": b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000,
    "bad chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "WebSocket": (
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ),
    "WebSocket with a version that is not ASCII": (
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: \xff\r\nSec-WebSocket-Key: AAAA\r\n"
        b"Sec-WebSocket-Protocol: \xff\r\nSec-WebSocket-Extensions: \xff\r\n\r\n"
    ),
    "HTTP/2 with a path that is not ASCII": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # SETTINGS, empty
        b"\x00\x00\x09\x01\x05\x00\x00\x00\x01"  # HEADERS that end stream 1
        b"\x82\x86\x44\x02/\xff\x41\x01a"
    ),
    "HTTP/2 that is none": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"GARBAGE" * 20,
}


@pytest.mark.parametrize("data", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_a_bad_request_ends_its_own_connection_only(
    autojump_clock: trio.testing.MockClock, data: bytes
) -> None:
    server = make_server(make_metrics())
    assert b" 200 " not in await exchange(server, data)
    assert trio.current_time() <= CONNECTION_SECONDS
    assert (await exchange(server, GET_METRICS)).startswith(b"HTTP/1.1 200 ")


async def test_one_connection_too_many_is_closed_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = make_server(make_metrics())
    ended = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await server.serve_connection(stream)
        ended.set()

    pairs = [stream_pair() for _ in range(CONNECTIONS_MAX)]
    async with AsyncExitStack() as clients, trio.open_nursery() as nursery:
        for client, served in pairs:
            await clients.enter_async_context(client)
            nursery.start_soon(serve, served)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()

        refused, served = stream_pair()
        async with refused:
            await server.serve_connection(served)
            assert await refused.receive_some() == b""

        await pairs[0][0].aclose()
        await ended.wait()
        admitted, served = stream_pair()
        async with admitted:
            nursery.start_soon(server.serve_connection, served)
            await admitted.send_all(GET_METRICS)
            assert (await read_all(admitted)).startswith(b"HTTP/1.1 200 ")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sent", [b"", b"GET /metr"])
async def test_a_request_that_does_not_come_is_not_waited_for(
    autojump_clock: trio.testing.MockClock, sent: bytes
) -> None:
    client, served = stream_pair()
    async with client:
        await client.send_all(sent)
        await make_server(make_metrics()).serve_connection(served)
        assert trio.current_time() <= REQUEST_SECONDS


def unread_metrics() -> Metrics:
    """Metrics of more bytes than the buffers of a socket hold."""
    return make_metrics(
        rows=[backlog(str(n), "t" * 128) for n in range(5_000)], max_labelled_subscriptions=5_000
    )


async def give_up(client: trio.SocketStream) -> None:
    """Frees a server that would wait for this client for ever, so that its test can fail."""
    await trio.sleep(10 * CONNECTION_SECONDS)
    await client.aclose()


async def test_a_client_that_never_reads_is_closed_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, served = stream_pair()
    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(give_up, client)
        await client.send_all(GET_METRICS)
        await make_server(unread_metrics()).serve_connection(served)
        assert trio.current_time() == CONNECTION_SECONDS
        nursery.cancel_scope.cancel()


async def test_a_client_that_never_reads_does_not_hold_up_the_shutdown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, served = stream_pair()
    async with client, trio.open_nursery() as clients:
        clients.start_soon(give_up, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_server(unread_metrics()).serve_connection, served)
            await client.send_all(GET_METRICS)
            assert await client.receive_some(1) == b"H"
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert trio.current_time() < CONNECTION_SECONDS
        clients.cancel_scope.cancel()
    assert served.socket.fileno() == -1


async def test_a_body_that_never_ends_is_not_taken_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, served = stream_pair()
    head = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n"
    body_bytes = 64 * 1024 * 1024
    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(make_server(make_metrics()).serve_connection, served)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(head + bytes(body_bytes))
    assert trio.current_time() <= CONNECTION_SECONDS
