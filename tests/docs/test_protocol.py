"""`docs/protocol.md` says what the code does: every example is played, every table compared."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final

import pytest

from blipmq import errors
from blipmq.broker.moves import REASONS
from blipmq.broker.stats import NACK_CODES
from blipmq.config import Config, settings
from blipmq.errors import BadRequest, Refused
from blipmq.protocol import attach_properties, properties
from blipmq.protocol.attach_properties import StartKind, parse_attach_properties
from blipmq.protocol.frames import (
    LENGTH_MAX,
    LENGTH_MAX_PUBLISH,
    LENGTH_MAX_UNAUTHENTICATED,
    SETTLE_ROW,
    TYPES,
    TYPES_V2,
    Outcome,
)
from blipmq.protocol.properties import parse_message_properties
from blipmq.protocol.property_fields import IGNORED_FROM
from tests.docs.conversation import Conversation
from tests.docs.markdown import ROOT, Block, Document

PROTOCOL = Document.read("docs/protocol.md")
EXAMPLES = PROTOCOL.blocks("hex")
UNITS: Final = {"": 1, "seconds": 1000, "hour": 3_600_000, "MiB": 1024**2, "GiB": 1024**3}

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: f"line {block.line}")


def spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def words(constant: str) -> str:
    """The name of a constant as the document has it."""
    return constant.lower().replace("_", " ")


@every_example
def test_the_broker_answers_as_the_example_says(example: Block) -> None:
    Conversation().play(example.text)


def test_there_are_examples_of_both_versions() -> None:
    of_version_2 = [block for block in EXAMPLES if "== version 2" in block.text]
    assert len(of_version_2) >= 20
    assert len(EXAMPLES) - len(of_version_2) >= 10


@every_example
def test_the_example_with_another_answer_does_not_pass(example: Block) -> None:
    lines = example.text.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("<- "):
            other = {"0": "1", "}": "]"}.get(line[-1], "0")
            with pytest.raises(AssertionError):
                Conversation().play("\n".join([*lines[:at], line[:-1] + other, *lines[at + 1 :]]))


@every_example
def test_the_example_with_an_answer_left_out_does_not_pass(example: Block) -> None:
    lines = example.text.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("<- "):
            assert lines[at - 1].startswith("# "), f"nothing says what this is: {line}"
            with pytest.raises(AssertionError):
                Conversation().play("\n".join([*lines[: at - 1], *lines[at + 1 :]]))


def test_every_frame_type_of_version_2_is_in_an_example() -> None:
    names = {line.split()[1].rstrip(",:") for line in lines_of_examples("# ")}
    assert set(TYPES_V2.values()) <= names


def lines_of_examples(start: str) -> Iterator[str]:
    for example in EXAMPLES:
        yield from (line for line in example.text.splitlines() if line.startswith(start))


def test_the_tables_have_every_frame_type() -> None:
    rows = PROTOCOL.tables("type", "name", "sent by", "payload")
    assert {int(row[0], 16): row[1] for row in rows} == TYPES
    added = PROTOCOL.tables("type", "name", "sent by", "correlation id", "payload")
    assert TYPES | {int(row[0], 16): row[1] for row in added if row[0]} == TYPES_V2


def test_the_table_has_every_property_where_it_may_stand() -> None:
    rows = PROTOCOL.tables("id", "name", "in", "value")
    for row in rows:
        ids = attach_properties if row[2] == "ATTACH" else properties
        assert getattr(ids, row[1].replace(" ", "_").upper()) == int(row[0])
    found = {int(row[0]): row[2] for row in rows}
    for id_ in range(IGNORED_FROM):
        assert found.get(id_) == place_of(id_), id_


def place_of(id_: int) -> str | None:
    """Where this property is known."""
    data = bytes((id_, 0, 0))
    if is_known(lambda: parse_attach_properties(data)):
        return "ATTACH"
    if is_known(lambda: parse_message_properties(data, from_client=True)):
        return "MESSAGE"
    if is_known(lambda: parse_message_properties(data, from_client=False)):
        return "MESSAGE of the broker"
    return None


def is_known(parse: Callable[[], object]) -> bool:
    try:
        parse()
    except BadRequest as refused:
        return refused.message != "unknown property"
    return True


def test_the_table_has_every_outcome() -> None:
    rows = PROTOCOL.tables("outcome", "name", "what becomes of the message")
    assert {int(row[0]): row[1] for row in rows} == {o.value: words(o.name) for o in Outcome}
    assert f"rows of {SETTLE_ROW.size} bytes" in PROTOCOL.prose


def test_the_table_has_every_start() -> None:
    rows = PROTOCOL.tables("start", "from", "value")
    assert {int(row[0]): row[1] for row in rows} == {k.value: words(k.name) for k in StartKind}


def test_the_table_has_every_reason_of_dead_letters() -> None:
    rows = PROTOCOL.tables("reason", "the message")
    assert {row[0] for row in rows} == {f"`{reason}`" for reason in REASONS.values()}


def test_the_table_has_every_key_of_info() -> None:
    rows = PROTOCOL.tables("key", "value")
    info = next(line for line in lines_of_examples("<- ") if "{" in line)
    document = json.loads(info[info.index("{") :])
    assert [row[0] for row in rows] == [f"`{key}`" for key in document]


def test_the_table_has_every_nack_code() -> None:
    rows = PROTOCOL.tables("code", "meaning", "what a client does")
    assert tuple(int(row[0]) for row in rows) == NACK_CODES


def test_every_nack_of_the_broker_is_named_and_no_other() -> None:
    named = {f"{code} {text}" for code, text in re.findall(r"NACK (\d+) `([^`]+)`", PROTOCOL.prose)}
    patterns = set(nacks_in_the_code())
    for nack in named:
        assert any(re.fullmatch(pattern, nack) for pattern in patterns), nack
    for pattern in patterns:
        # What stands behind a colon is a reason, of which there are many.
        reasoned = re.sub(": .*", ": ", pattern.replace("\\", ""))
        assert reasoned in named or any(re.fullmatch(pattern, nack) for nack in named), pattern


def nacks_in_the_code() -> Iterator[str]:
    """Code and text of every NACK that the broker can send, as regular expressions."""
    for path in [*(ROOT / "blipmq/broker").glob("*.py"), *(ROOT / "blipmq/protocol").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            made = getattr(errors, node.func.id, None)
            if isinstance(made, type) and issubclass(made, Refused):
                code, text = node.args
                yield f"{ast.literal_eval(code)} {as_pattern(text)}"


def as_pattern(text: ast.expr) -> str:
    if isinstance(text, ast.JoinedStr):
        return "".join(map(as_pattern, text.values))
    return re.escape(str(text.value)) if isinstance(text, ast.Constant) else ".*"


@pytest.mark.parametrize(
    "bound", [LENGTH_MAX, LENGTH_MAX_PUBLISH, LENGTH_MAX_UNAUTHENTICATED], ids=spaced
)
def test_the_bounds_of_a_frame_are_named(bound: int) -> None:
    assert spaced(bound) in PROTOCOL.prose


def test_the_settings_that_are_named_exist_and_have_the_defaults_that_are_named() -> None:
    keys = set(settings())
    tables = "|".join({key.split(".")[0] for key in keys if "." in key})
    assert set(re.findall(rf"`((?:{tables})\.\w+)`", PROTOCOL.prose)) <= keys
    found = re.findall(r"`([a-z_.]+)`\s\((an|\d+) ?(\w*)\)", PROTOCOL.prose)
    assert len(found) >= 20
    for key, number, unit in found:
        value = UNITS[unit] * (1 if number == "an" else int(number))
        assert attrgetter(key)(Config()) == value, key
