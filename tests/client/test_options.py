"""What may be asked for, and what is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import TooLarge
from blipmq.client.outgoing import check_size, properties_of, with_message_id
from blipmq.client.source import StartAt, Wanted, is_pattern, wanted
from blipmq.protocol.attach_properties import Start, StartKind
from blipmq.protocol.frames import ATTACH, LENGTH_MAX_PUBLISH
from blipmq.protocol.properties import MessageProperties, parse_message_properties
from blipmq.protocol.requests import parse_attach
from blipmq.testing import open_broker
from tests.client.tap import Tap

pytestmark = pytest.mark.usefixtures("carrier")


def asked(
    topic: str = "demo",
    *,
    qos: int = 1,
    name: str | None = None,
    pattern: bool | None = None,
    prefetch: int | None = None,
    start: StartAt | None = None,
    ack_wait: float | None = None,
    max_attempts: int | None = None,
) -> Wanted:
    return wanted(
        topic,
        qos=qos,
        name=name,
        pattern=pattern,
        prefetch=prefetch,
        start=start,
        ack_wait=ack_wait,
        max_attempts=max_attempts,
    )


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda: asked(""), "empty topic"),
        (lambda: asked(qos=2), "invalid QoS value 2"),
        (lambda: asked(prefetch=0), "prefetch 0; expected 1 or more"),
        (lambda: asked(prefetch=1 << 32), "prefetch 4294967296"),
        (lambda: asked(name=""), "expected 1 to 128 bytes"),
        (lambda: asked(name="n" * 129), "expected 1 to 128 bytes"),
        (lambda: asked(name="n", qos=0), "a named subscription has QoS 1"),
        (lambda: asked(ack_wait=0), "ack_wait 0; expected seconds, more than 0"),
        (lambda: asked(ack_wait=float("inf")), "ack_wait inf"),
        (lambda: asked(ack_wait=float("nan")), "ack_wait nan"),
        (lambda: asked(max_attempts=65_536), "max_attempts 65536"),
        (lambda: asked(start=-1), "start -1; expected"),
        (lambda: properties_of(ttl=-1), "ttl -1; expected seconds, 0 or more"),
        (lambda: properties_of(message_id=b""), "a message id of 0 bytes"),
        (lambda: properties_of(message_id=bytes(129)), "a message id of 129 bytes"),
        (lambda: properties_of(key=bytes(1025)), "a key of 1025 bytes"),
        (lambda: properties_of(reply_to=""), "empty topic"),
        (lambda: properties_of(delay=1, qos=0), "a delayed message is published at QoS 1"),
        (
            lambda: with_message_id(properties_of(headers={"n" * 256: b""}), b"id"),
            "the name of a header has 256 bytes",
        ),
    ],
)
def test_what_cannot_be_is_refused(ask: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ask()


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("new", Start(StartKind.NEW)),
        ("earliest", Start(StartKind.EARLIEST)),
        (7, Start(StartKind.TAG, 7)),
        (datetime(1970, 1, 2, tzinfo=UTC), Start(StartKind.TIME, 86_400_000)),
    ],
)
def test_a_start_is_named_in_several_ways(start: StartAt, expected: Start) -> None:
    assert asked(start=start).start == expected


@pytest.mark.parametrize(
    ("topic", "pattern"),
    [
        ("a", False),
        ("a.b", False),
        ("a*", False),
        ("a.>b", False),
        (">.a", False),
        ("*", True),
        (">", True),
        ("a.*.b", True),
        ("a.>", True),
    ],
)
def test_a_pattern_is_known_by_its_levels(topic: str, pattern: bool) -> None:
    assert is_pattern(topic) is pattern
    assert asked(topic).pattern is pattern
    assert asked(topic, pattern=not pattern).pattern is not pattern


def test_a_message_without_options_has_no_properties() -> None:
    assert properties_of() is None
    assert properties_of(headers={}) is None
    assert properties_of(ttl=0) == MessageProperties(ttl_ms=0)


def test_a_message_id_of_its_own_is_kept() -> None:
    for given, expected in ((None, b"ours"), (b"mine", b"mine")):
        encoded = with_message_id(properties_of(message_id=given, ttl=1), b"ours")
        assert parse_message_properties(encoded, from_client=True).message_id == expected
    encoded = with_message_id(None, b"ours")
    assert parse_message_properties(encoded, from_client=True).message_id == b"ours"


def test_the_largest_body_depends_on_topic_and_properties() -> None:
    room = LENGTH_MAX_PUBLISH - 9
    check_size(room - 3 - 5, b"topic")
    check_size(room - 5 - 5 - 7, b"topic", bytes(7))
    with pytest.raises(TooLarge):
        check_size(room - 3 - 4, b"topic")
    with pytest.raises(TooLarge):
        check_size(room - 5 - 5 - 6, b"topic", bytes(7))


async def test_a_history_is_not_read_again_after_a_reconnect(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as publisher:
        tap = Tap()
        broker.wrap = tap.around
        async with (
            broker.client() as client,
            client.subscribe("demo", start="earliest") as messages,
        ):
            await publisher.publish("demo", b"hello")
            async with await messages.receive() as message:
                tag = message.tag
            await client.ping()
            await broker.hang_up()
            await trio.sleep(1)
            await wait_all_tasks_blocked()
        starts = [parse_attach(f.payload)[2].start for f in tap.sent if f.type == ATTACH]
    assert tag is not None
    assert starts == [Start(StartKind.EARLIEST), Start(StartKind.TAG, tag + 1)]
