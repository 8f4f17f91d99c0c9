"""The JavaScript module, in a page of a headless Chromium, with a daemon of its own."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest

from tests.daemon.chromium import BINARY, Page, PageError, chromium, open_page
from tests.daemon.process import Process, Processes
from tests.docs.markdown import Document
from tests.peer import KEY, bodies

pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def devtools() -> Iterator[str]:
    with chromium() as url:
        yield url


@attrs.define(eq=False)
class World:
    """A page, and a daemon whose WebSocket listener lets it in."""

    page: Page
    daemon: Process
    url: str

    async def run(self, script: str, **values: object) -> Any:
        """As `Page.run`, with a `client`, which is closed behind it."""
        return await self.page.run(
            f"""
            const client = await blipmq.connect(url, {{ apiKey }});
            try {{ {script} }} finally {{ await client.close(); }}
            """,
            url=self.url,
            apiKey=KEY,
            **values,
        )


@pytest.fixture
async def page(devtools: str) -> AsyncIterator[Page]:
    async with open_page(devtools) as page:
        yield page


async def start(
    processes: Processes, origin: str, port: int = 0, **settings: str
) -> tuple[Process, str]:
    """A daemon, and the URL of its WebSocket listener."""
    daemon = await processes.start(
        **settings,
        BLIPMQ_WEBSOCKET_ENABLED="true",
        BLIPMQ_WEBSOCKET_PORT=port,
        BLIPMQ_WEBSOCKET_ALLOWED_ORIGINS=origin,
        BLIPMQ_RETRY_BACKOFF_MS=1,
    )
    return daemon, f"ws://{(await daemon.logged('ready'))['websocket']}/"


@pytest.fixture
async def world(page: Page, processes: Processes) -> World:
    daemon, url = await start(processes, page.site.origin)
    return World(page, daemon, url)


async def test_a_message_arrives_with_all_that_it_was_given(world: World) -> None:
    message = await world.run(
        """
        const messages = await client.subscribe("demo", { name: "shop" });
        await client.publish("demo", JSON.stringify({ a: "é" }), {
            key: "k", contentType: "application/json", headers: { one: "1", two: "zwei" },
            replyTo: "answers", messageId: "m-1", ttlMs: 60000, timestamp: 1700000000000,
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        });
        const { value: message } = await messages.next();
        return {
            ...message, tag: typeof message.tag, body: message.body.length,
            json: message.json(), timestamp: message.timestamp.getTime(),
            accepted: message.accept(), again: message.accept(),
        };
        """
    )
    assert message == {
        "topic": "demo",
        "qos": 1,
        "tag": "bigint",
        "attempt": 1,
        "body": len('{"a":"é"}'.encode()),
        "json": {"a": "é"},
        "key": "k",
        "contentType": "application/json",
        "headers": {"one": "1", "two": "zwei"},
        "replyTo": "answers",
        "messageId": "m-1",
        "ttlMs": 60_000,
        "timestamp": 1_700_000_000_000,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "deadLetter": None,
        "settled": False,
        "accepted": True,
        "again": False,
    }


async def test_a_page_and_a_client_over_tcp_reach_each_other(world: World) -> None:
    async with world.daemon.client() as peer:
        subscription = await peer.subscribe("from the page")
        await world.run("""await client.publish("from the page", new Uint8Array([0, 255]));""")
        assert bodies(await peer.poll(subscription)) == [b"\x00\xff"]
        await peer.publish("to the page", b"hello")
    text = await world.run(
        """
        const messages = await client.subscribe("to the page");
        for await (const message of messages) { message.accept(); return message.text(); }
        """
    )
    assert text == "hello"


async def test_many_messages_come_in_order_and_large_ones_whole(world: World) -> None:
    got = await world.run(
        """
        const messages = await client.subscribe("demo", { prefetch: 100 });
        const published = Promise.all(
            Array.from({ length: 3000 }, (_, number) => client.publish("demo", String(number))));
        const texts = [];
        while (texts.length < 3000) {
            const { value: message } = await messages.next();
            texts.push(message.text());
            message.accept();
        }
        await published;
        const large = new Uint8Array(5_000_000).fill(7);
        await client.publish("demo", large);
        const { value: last } = await messages.next();
        const inOrder = texts.every((text, at) => text === String(at));
        return [inOrder, last.body.length, last.body[4999999]];
        """
    )
    assert got == [True, 5_000_000, 7]


async def test_what_the_connection_cannot_take_yet_waits_and_is_sent_in_order(
    world: World,
) -> None:
    got = await world.run(
        """
        const messages = await client.subscribe("demo", { qos: 0 });
        const part = new Uint8Array(200_000);
        const published = Array.from({ length: 40 }, (_, number) => {
            part[0] = number;
            return client.publish("demo", part, { qos: number % 2 });
        });
        const waiting = client.unconfirmed;
        await Promise.all(published);
        const order = [];
        while (order.length < 40) order.push((await messages.next()).value.body[0]);
        return [waiting > 0, order];
        """
    )
    assert got == [True, list(range(40))]


async def test_no_more_than_so_many_publishes_are_on_their_way(world: World) -> None:
    got = await world.page.run(
        """
        const client = await blipmq.connect(url, { apiKey, maxUnconfirmed: 2 });
        const published = Array.from({ length: 20 }, () => client.publish("demo", ""));
        await Promise.resolve();
        const waiting = client.unconfirmed;
        await client.close();
        await Promise.all(published);
        return [waiting, client.unconfirmed];
        """,
        url=world.url,
        apiKey=KEY,
    )
    assert got == [20, 0]


async def test_quick_and_forgetful_messages(world: World) -> None:
    got = await world.run(
        """
        const messages = await client.subscribe("demo", { qos: 0 });
        await client.publish("demo", "fleeting", { qos: 0 });
        const { value: message } = await messages.next();
        return [message.text(), message.qos, message.tag, message.accept()];
        """
    )
    assert got == ["fleeting", 0, None, True]


async def test_what_nobody_takes_at_qos_0_is_bounded_and_counted(world: World) -> None:
    got = await world.run(
        """
        const messages = await client.subscribe("demo", { qos: 0 });
        for (let number = 0; number < 1500; number++) {
            client.publish("demo", String(number), { qos: 0 });
        }
        await client.publish("demo", "1500");
        await client.ping();
        const { value: oldest } = await messages.next();
        return [messages.dropped, oldest.text()];
        """
    )
    assert got == [1501 - 1024, str(1501 - 1024)]


async def test_what_is_retried_released_or_rejected_goes_where_it_belongs(world: World) -> None:
    got = await world.run(
        """
        const messages = await client.subscribe("demo", { name: "shop" });
        const dead = await client.subscribe("$dead.demo");
        await client.publish("demo", "a");
        const attempts = [];
        for await (const message of messages) {
            attempts.push(message.attempt);
            if (attempts.length === 1) message.release();
            else if (attempts.length === 2) { message.extend(); message.retry(1); }
            else { message.reject(); break; }
        }
        const { value: letter } = await dead.next();
        const { reason, topic, subscription, tag } = letter.deadLetter;
        return [attempts, letter.text(), reason, topic, subscription, typeof tag];
        """
    )
    assert got == [[1, 1, 2], "a", "rejected", "demo", "shop", "bigint"]


async def test_a_callback_accepts_when_it_returns_and_retries_when_it_throws(
    world: World,
) -> None:
    got = await world.run(
        """
        const calls = [];
        const reported = [];
        addEventListener("error", (event) => { reported.push(event.error.message); });
        await new Promise(async (resolve) => {
            await client.subscribe("demo", { name: "shop" }, async (message) => {
                calls.push([message.text(), message.attempt]);
                if (message.text() === "bad" && message.attempt === 1) throw new Error("oh");
                if (calls.length === 3) setTimeout(resolve);
            });
            await client.publish("demo", "bad");
            await client.publish("demo", "good");
        });
        return [calls.sort(), reported];
        """
    )
    assert got == [[["bad", 1], ["bad", 2], ["good", 1]], ["oh"]]
    assert await world.daemon.metric("blipmq_messages_inflight") == 0


async def test_patterns_starts_and_the_end_of_a_named_subscription(world: World) -> None:
    got = await world.run(
        """
        await client.publish("orders.eu", "early");
        const all = await client.subscribe("orders.*", { name: "all", start: "earliest" });
        await client.publish("orders.us", "late");
        const texts = [];
        for await (const message of all) {
            message.accept();
            texts.push(message.text());
            if (message.text() === "late") break;
        }
        const first = await client.subscribe("demo", { name: "shop" });
        const second = await client.subscribe("demo", { name: "shop" });
        const ended = first.next().then(() => "no", (error) => error.name);
        await second.close({ delete: true });
        return [texts.at(-1), await ended, (await second.next()).done];
        """
    )
    assert got == ["late", "SubscriptionEnded", True]


async def test_leaving_a_loop_gives_the_rest_to_others(world: World) -> None:
    got = await world.run(
        """
        const messages = await client.subscribe("demo", { name: "shop" });
        for (const text of ["a", "b"]) await client.publish("demo", text);
        for await (const message of messages) { message.accept(); break; }
        const other = await client.subscribe("demo", { name: "shop" });
        const { value: message } = await other.next();
        return [message.text(), message.attempt];
        """
    )
    assert got[0] == "b"


REFUSALS = {
    'await client.publish("$dead.demo", "");': "NotPermitted: not permitted",
    'await client.publish("", "");': "BadRequest: empty topic",
    'await client.publish("demo", new Uint8Array(17e6));': "TooLarge: message too large",
    'await client.publish("demo", { a: 1 });': "TypeError: body: expected a string",
    'await client.publish(5, "");': "TypeError: topic: expected a string, found number",
    'await client.publish("demo", "", { QoS: 1 });': "TypeError: unknown option QoS",
    'await client.publish("demo", "", { qos: 2 });': "RangeError: qos: expected 0 or 1",
    'await client.publish("demo", "", { ttlMs: -1 });': "RangeError: ttlMs: expected",
    'await client.publish("demo", "", { ttlMs: "x" });': "RangeError: ttlMs: expected",
    'await client.publish("demo", "", { key: "k".repeat(1025) });': "RangeError: key: expected",
    'await client.subscribe("");': "BadRequest: empty topic",
    'await client.subscribe("demo", { prefetch: 0 });': "RangeError: prefetch: expected",
    'await client.subscribe("demo", { start: 5 });': "TypeError: start: expected",
    'await client.subscribe("demo", { qos: 0, name: "x" });': "BadRequest: ",
    'await client.close(); await client.publish("demo", "");': "ClientClosed: ",
    'await client.close(); await client.subscribe("demo");': "ClientClosed: ",
    "await client.close(); await client.ping();": "ClientClosed: ",
    'await blipmq.connect(url, { apiKey: "wrong" });': "AuthenticationFailed: invalid API key",
    'await blipmq.connect("ws://127.0.0.1:1/", { apiKey });': "ConnectionLost: cannot connect to",
    "await blipmq.connect(url, {});": "TypeError: apiKey: expected a string",
    "await blipmq.connect(url, { apiKey, key: 1 });": "TypeError: unknown option key",
}


async def test_what_is_refused_has_a_class_and_a_text(world: World) -> None:
    for script, expected in REFUSALS.items():
        with pytest.raises(PageError) as caught:
            await world.run(script)
        assert str(caught.value).startswith(expected), script


async def test_a_refused_publish_at_qos_0_is_an_event(world: World) -> None:
    got = await world.run(
        """
        const refused = new Promise((resolve) => client.addEventListener("refused", resolve));
        await client.publish("$dead.demo", "", { qos: 0 });
        const { error } = await refused;
        return [error.name, error.code, error instanceof blipmq.Refused];
        """
    )
    assert got == ["NotPermitted", 403, True]


async def test_a_page_of_another_origin_does_not_get_in(page: Page, processes: Processes) -> None:
    daemon, url = await start(processes, "https://app.example")
    with pytest.raises(PageError, match=r"^ConnectionLost: cannot connect"):
        await page.run("await blipmq.connect(url, { apiKey });", url=url, apiKey=KEY)
    assert await daemon.metric("blipmq_connections_refused_total", reason="origin") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_connection_that_is_lost_is_replaced_and_nothing_with_it(
    world: World, processes: Processes, number: signal.Signals
) -> None:
    await world.page.run(
        """
        const client = await blipmq.connect(url, { apiKey });
        globalThis.states = [];
        client.addEventListener("statechange", () => states.push(client.state));
        const messages = await client.subscribe("demo", { name: "shop" });
        globalThis.got = [];
        globalThis.client = client;
        globalThis.loop = (async () => {
            for await (const message of messages) {
                got.push(message.text());
                message.accept();
                if (message.text() === "last") break;
            }
        })();
        await client.publish("demo", "first");
        """,
        url=world.url,
        apiKey=KEY,
    )
    world.daemon.signal(number)
    await world.daemon.status()
    await world.page.run("""globalThis.later = client.publish("demo", "last"); await null;""")
    port = int(world.url.rstrip("/").rpartition(":")[2])
    await start(processes, world.page.site.origin, port)
    got = await world.page.run(
        """
        await later;
        await loop;
        await client.close();
        return [states, got];
        """
    )
    states, texts = got
    assert states[-3:] == ["reconnecting", "connected", "closed"]
    assert ("draining" in states) == (number == signal.SIGTERM)
    assert texts == ["first", "last"] or texts == ["first", "first", "last"]


async def test_without_reconnecting_what_is_lost_stays_lost(world: World) -> None:
    await world.page.run(
        """
        globalThis.client = await blipmq.connect(url, { apiKey, reconnect: false });
        const messages = await client.subscribe("demo");
        globalThis.ended = messages.next().then(() => "no", (error) => error.name);
        """,
        url=world.url,
        apiKey=KEY,
    )
    await world.daemon.kill()
    got = await world.page.run(
        """
        const name = await ended;
        const state = client.state;
        const error = await client.publish("demo", "").catch((error) => error);
        await client.close();
        return [name, state, error.name];
        """
    )
    assert got == ["ConnectionLost", "lost", "ConnectionLost"]


class TestHeartbeat:
    @pytest.fixture
    async def world(self, page: Page, processes: Processes) -> World:
        """The daemon expects to hear of its clients often."""
        daemon, url = await start(processes, page.site.origin, BLIPMQ_LIMITS_HEARTBEAT_MS="500")
        return World(page, daemon, url)

    async def test_a_quiet_client_lets_the_broker_hear_of_it(self, world: World) -> None:
        got = await world.run(
            """
            let count = 0;
            const send = WebSocket.prototype.send;
            await new Promise((resolve) => {
                WebSocket.prototype.send = function (bytes) {
                    send.call(this, bytes);
                    if (bytes[4] === 0x07 && ++count === 6) resolve();
                };
            });
            WebSocket.prototype.send = send;
            await client.ping();
            return client.state;
            """
        )
        assert got == "connected"
        refused = await world.daemon.metric("blipmq_connections_refused_total", reason="heartbeat")
        assert refused == 0

    async def test_a_broker_that_is_silent_counts_as_gone(self, world: World) -> None:
        await world.page.run(
            """
            globalThis.client = await blipmq.connect(url, { apiKey });
            globalThis.become = (state) => new Promise((resolve) => {
                client.addEventListener("statechange", () => {
                    if (client.state === state) resolve();
                });
            });
            globalThis.gone = become("reconnecting");
            """,
            url=world.url,
            apiKey=KEY,
        )
        world.daemon.signal(signal.SIGSTOP)
        await world.page.run("await gone; globalThis.back = become('connected');")
        world.daemon.signal(signal.SIGCONT)
        assert await world.page.run("await back; await client.close(); return client.state;") == (
            "closed"
        )


async def test_the_program_of_the_documentation_runs(world: World) -> None:
    (program,) = Document.read("docs/javascript.md").blocks("js")
    assert "ws://127.0.0.1:5557/" in program.text
    text = program.text.replace("ws://127.0.0.1:5557/", world.url)
    world.page.site.programs["/program.js"] = text
    shown = await world.page.run('await import("/program.js"); return document.body.textContent;')
    assert shown == "orders.eu: a book"
