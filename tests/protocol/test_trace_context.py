"""What a traceparent says, and where in a run sampled ones are found."""

from __future__ import annotations

import pytest

from blipmq.protocol import encoder
from blipmq.protocol.properties import MessageProperties, encode_message_properties
from blipmq.protocol.run import Run, made_run
from blipmq.protocol.trace_context import TraceContext, sampled_contexts

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = SAMPLED[:-1] + "0"


def run_of(*messages: tuple[str | None, bytes]) -> Run:
    """A run of messages with these contexts and bodies."""
    frames = []
    for context, body in messages:
        properties = MessageProperties(trace_context=context, headers=(("name", b"value"),))
        encoded = encode_message_properties(properties)
        frames.append(encoder.message(0, 1, b"topic", encoded, body))
    return made_run(b"topic", 1, frames)


def found(run: Run, start: int = 0, stop: int | None = None) -> list[tuple[int, str]]:
    return [(index, str(context)) for index, context in sampled_contexts(run, start, stop)]


def test_a_traceparent_is_read_and_written() -> None:
    context = TraceContext.parse(SAMPLED)
    assert context is not None
    assert (context.trace_id, context.span_id) == (
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
    )
    assert context.sampled
    assert str(context) == SAMPLED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01" + SAMPLED[2:],
        SAMPLED.upper(),
        SAMPLED + "-00",
        SAMPLED[:-1],
        "00-" + "0" * 32 + SAMPLED[35:],
        SAMPLED[:36] + "0" * 16 + "-01",
        SAMPLED.replace("a", "g"),
    ],
)
def test_what_is_no_traceparent_of_version_00_is_none(text: str) -> None:
    assert TraceContext.parse(text) is None


def test_sampled_contexts_are_found_among_others_of_any_size() -> None:
    run = run_of((None, b"a"), (SAMPLED, b"bb"), (NOT_SAMPLED, b""), (SAMPLED, b"c" * 99))
    assert found(run) == [(1, SAMPLED), (3, SAMPLED)]


def test_sampled_contexts_are_found_among_messages_of_one_size() -> None:
    run = run_of(*[(SAMPLED, b"same")] * 50)
    assert isinstance(run.offsets, range)
    assert [index for index, _ in found(run)] == list(range(50))


def test_only_the_messages_that_are_asked_for_are_looked_at() -> None:
    run = run_of(*[(SAMPLED, b"x")] * 5)
    assert [index for index, _ in found(run, 1, 3)] == [1, 2]


def test_sampled_contexts_are_found_in_long_messages_which_are_not_searched() -> None:
    long = (b"\x07\x00\x37" + SAMPLED.encode()) * 20
    assert found(run_of((None, long), (SAMPLED, long), (NOT_SAMPLED, long))) == [(1, SAMPLED)]
    assert found(run_of(*[(SAMPLED, long)] * 50), 7, 9) == [(7, SAMPLED), (8, SAMPLED)]


def test_a_body_that_looks_like_the_property_is_none() -> None:
    run = run_of((None, b"\x07\x00\x37" + SAMPLED.encode()), (SAMPLED, b"\x07\x00\x3700-"))
    assert found(run) == [(1, SAMPLED)]


def test_a_run_of_publishes_has_none_whatever_is_in_its_bodies() -> None:
    body = b"\x07\x00\x37" + SAMPLED.encode()
    assert found(made_run(b"topic", 1, [encoder.publish(0, 1, b"topic", body)])) == []


def test_a_context_that_is_no_traceparent_is_passed_over() -> None:
    broken = "00-" + "z" * 52
    assert len(broken) == len(SAMPLED)
    assert found(run_of((broken, b""), (SAMPLED, b""))) == [(1, SAMPLED)]
