from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.cli.json_lines import from_line, time_text, to_line
from blipmq.protocol.properties import DeadLetter, MessageProperties
from blipmq.wal.transfer import StoredMessage

TIME_MS = 1_700_000_000_123
MESSAGE = StoredMessage(b"demo", b"body", 9, 1, TIME_MS, (7, 8))


def test_a_line_is_an_object_with_all_that_is_known() -> None:
    assert json.loads(to_line(MESSAGE)) == {
        "topic": "demo",
        "number": 9,
        "qos": 1,
        "time": "2023-11-14T22:13:20.123Z",
        "body": "body",
        "subscriptions": [7, 8],
    }


def test_a_kept_message_says_so() -> None:
    assert json.loads(to_line(attrs.evolve(MESSAGE, kept=True)))["kept"] is True


def test_a_body_that_is_not_utf8_is_in_base64() -> None:
    fields = json.loads(to_line(attrs.evolve(MESSAGE, body=b"\xff\0")))
    assert fields["body_base64"] == "/wA="
    assert "body" not in fields


def test_a_time_that_no_calendar_has_is_left_out() -> None:
    assert time_text(1 << 60) is None


def test_properties_are_an_object() -> None:
    letter = DeadLetter("expired", b"demo", 7, b"")
    properties = MessageProperties(
        ttl_ms=0, message_id=b"\xff", key=b"k", headers=(("h", b"v"),), dead_letter=letter
    )
    assert json.loads(to_line(attrs.evolve(MESSAGE, properties=properties)))["properties"] == {
        "ttl_ms": 0,
        "message_id_base64": "/w==",
        "key": "k",
        "headers": [{"name": "h", "value": "v"}],
        "dead_letter": {"reason": "expired", "topic": "demo", "number": 7, "subscription": ""},
    }


def test_a_delayed_message_says_so() -> None:
    delayed = attrs.evolve(MESSAGE, properties=MessageProperties(delay_ms=5))
    fields = json.loads(to_line(delayed))
    assert (fields["delayed"], fields["properties"]) == (True, {"delay_ms": 5})


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
names = texts.map(str.encode)
durations = st.integers(0, 2**53)
properties = st.builds(
    MessageProperties,
    st.none() | durations,
    durations,
    st.none() | st.binary(min_size=1, max_size=128),
    st.none() | st.binary(max_size=1_024),
    st.none() | texts.filter(bool).map(str.encode),
    st.none() | texts,
    st.none() | texts,
    st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3).map(tuple),
    st.none() | st.integers(0, 2**64 - 1),
    st.just(1),
    st.none() | st.builds(DeadLetter, texts, names, st.integers(0, 2**64 - 1), names),
)


@given(
    st.builds(
        StoredMessage,
        st.text(st.characters(codec="utf-8"), min_size=1).map(str.encode),
        st.binary() | st.text(st.characters(codec="utf-8")).map(str.encode),
        time_ms=st.integers(0, 253_402_300_799_999),
        properties=properties,
    )
)
def test_a_message_is_read_as_it_was_written(message: StoredMessage) -> None:
    line = to_line(message)
    assert "\n" not in line
    assert from_line(line) == message


@pytest.mark.parametrize("time", ["2023-11-14T22:13:20.123Z", "2023-11-14T23:13:20.123+01:00"])
def test_a_time_may_have_any_offset(time: str) -> None:
    line = json.dumps({"topic": "t", "body": "", "time": time})
    assert from_line(line).time_ms == TIME_MS


def test_a_topic_and_a_body_are_enough() -> None:
    assert from_line('{"topic": "t", "body": "b"}') == StoredMessage(b"t", b"b")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "this is not JSON"),
        (b'{"topic": "\xff"}', "this is not UTF-8"),
        ("[]", "expected a JSON object"),
        ('{"body": "b"}', "expected a text as `topic`"),
        ('{"topic": 5, "body": "b"}', "expected a text as `topic`"),
        ('{"topic": "", "body": "b"}', "the topic is empty"),
        ('{"topic": "t"}', "expected either a text as `body` or base64"),
        ('{"topic": "t", "body": 5}', "expected either a text as `body` or base64"),
        ('{"topic": "t", "body": "", "body_base64": ""}', "expected either a text as `body`"),
        ('{"topic": "t", "body_base64": "&"}', "`body_base64` is not base64"),
        ('{"topic": "t", "body": "\\ud800"}', "half of a surrogate pair"),
        ('{"topic": "t", "body": "", "time": 5}', "expected ISO 8601"),
        ('{"topic": "t", "body": "", "time": "2023-11-14T22:13:20"}', "with its offset from UTC"),
        ('{"topic": "t", "body": "", "time": "yesterday"}', "expected ISO 8601"),
        ('{"topic": "t", "body": "", "properties": 5}', "JSON object as `properties`"),
        ('{"topic": "t", "body": "", "properties": {"tll_ms": 5}}', "unknown field `tll_ms`"),
        ('{"topic": "t", "body": "", "properties": {"ttl_ms": "5"}}', "whole number.*`ttl_ms`"),
        ('{"topic": "t", "body": "", "properties": {"ttl_ms": -5}}', "whole number.*`ttl_ms`"),
        ('{"topic": "t", "body": "", "properties": {"ttl_ms": 1e300}}', "whole number"),
        ('{"topic": "t", "body": "", "properties": {"key": 5}}', "a text as `key`"),
        ('{"topic": "t", "body": "", "properties": {"key_base64": "&"}}', "is not base64"),
        (
            '{"topic": "t", "body": "", "properties": {"key": "", "key_base64": ""}}',
            "either `key` or `key_base64`",
        ),
        ('{"topic": "t", "body": "", "properties": {"headers": {}}}', "a list as `headers`"),
        ('{"topic": "t", "body": "", "properties": {"headers": [5]}}', "JSON objects in"),
        ('{"topic": "t", "body": "", "properties": {"headers": [{"name": "n"}]}}', "a `value`"),
        ('{"topic": "t", "body": "", "properties": {"dead_letter": 5}}', "as `dead_letter`"),
        ('{"topic": "t", "body": "", "properties": {"dead_letter": {}}}', "of `dead_letter`"),
        ('{"topic": "t", "body": "", "properties": {"message_id": ""}}', "empty"),
        ('{"topic": "t", "body": "", "properties": {"key": "\\ud800"}}', "surrogate"),
    ],
)
def test_a_line_that_is_no_message_is_refused(line: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_line(line)
