"""`docs/protocol.md` says what the code does: every example is played, every table compared."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from blipmq.broker.stats import NACK_CODES
from blipmq.protocol.frames import LENGTH_MAX, LENGTH_MAX_PUBLISH, LENGTH_MAX_UNAUTHENTICATED, TYPES
from tests.docs.conversation import Conversation
from tests.docs.markdown import Block, Document

PROTOCOL = Document.read("docs/protocol.md")
EXAMPLES = PROTOCOL.blocks("hex")


def spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: f"line {block.line}")
def test_the_broker_answers_as_the_example_says(example: Block) -> None:
    Conversation(durable="== the log" in example.text).play(example.text)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10


def test_an_example_that_is_wrong_does_not_pass() -> None:
    example = EXAMPLES[0].text
    wrong = example[:-2] + "9\n"
    assert wrong != example
    with pytest.raises(AssertionError):
        Conversation(durable=False).play(wrong)


def test_an_example_that_leaves_an_answer_out_does_not_pass() -> None:
    without_the_last = "".join(EXAMPLES[0].text.splitlines(keepends=True)[:-2])
    with pytest.raises(AssertionError, match="does not have"):
        Conversation(durable=False).play(without_the_last)


def test_the_table_has_every_frame_type() -> None:
    rows = PROTOCOL.tables("type", "name", "sent by", "payload")
    assert {int(row[0], 16): row[1] for row in rows} == TYPES


def test_the_table_has_every_nack_code() -> None:
    rows = PROTOCOL.tables("code", "meaning", "what a client does")
    assert tuple(int(row[0]) for row in rows) == NACK_CODES


@pytest.mark.parametrize(
    "bound", [LENGTH_MAX, LENGTH_MAX_PUBLISH, LENGTH_MAX_UNAUTHENTICATED], ids=spaced
)
def test_the_bounds_of_a_frame_are_named(bound: int) -> None:
    assert spaced(bound) in PROTOCOL.prose


def test_the_limits_that_are_named_have_the_defaults_that_are_named() -> None:
    limits = Limits()
    assert f"`limits.max_auth_failures` ({limits.max_auth_failures})" in PROTOCOL.prose
    assert f"`limits.queue_capacity` ({limits.queue_capacity})" in PROTOCOL.prose
