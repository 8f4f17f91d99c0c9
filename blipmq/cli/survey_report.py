"""What is in a log, as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from blipmq.cli.json_lines import time_text
from blipmq.wal.facts import SubscriptionState
from blipmq.wal.segment import segment_name
from blipmq.wal.survey import Amount, Survey

_WIDTH_OF_A_FILE = 160


def survey_json(path: Path, survey: Survey, now_ms: int) -> dict[str, object]:
    """Everything in numbers; times are ISO 8601 in UTC, ages in milliseconds."""
    checkpoint = survey.checkpoint
    return {
        "path": str(path),
        "segments": [
            {
                "sequence": segment.sequence,
                "file": segment_name(segment.sequence),
                "bytes": segment.bytes,
                "records": segment.records,
                "first_time": time_text(segment.first_ms),
                "last_time": time_text(segment.last_ms),
                "torn_bytes": segment.torn_bytes,
            }
            for segment in survey.segments
        ],
        "topics": [
            {"topic": topic.decode(errors="replace"), **_amount_json(amount, now_ms)}
            for topic, amount in sorted(survey.topics.items())
        ],
        "subscriptions": [
            {
                "id": subscription.state.id,
                "owner": subscription.state.owner,
                "topic": subscription.state.topic.decode(errors="replace"),
                "name": subscription.state.name.decode(errors="replace"),
                "shared": subscription.state.shared,
                "pattern": subscription.state.pattern,
                "parent": subscription.state.parent or None,
                "ack_wait_ms": subscription.state.ack_wait_ms,
                "max_attempts": subscription.state.max_attempts,
                "cursor": subscription.cursor,
                "unsettled": _amount_json(subscription.unsettled, now_ms),
            }
            for _, subscription in sorted(survey.subscriptions.items())
        ],
        "kept": [
            {"topic": topic.decode(errors="replace"), **_amount_json(amount, now_ms)}
            for topic, amount in sorted(survey.kept.items())
        ],
        "delayed": [
            {"topic": topic.decode(errors="replace"), **_amount_json(amount, now_ms)}
            for topic, amount in sorted(survey.delayed.items())
        ],
        "checkpoint": None
        if checkpoint is None
        else {
            "segment": survey.checkpoint_segment,
            "reserved_number": checkpoint.reserved,
            "older_segments": list(checkpoint.segments),
            "subscriptions": len(checkpoint.subscriptions),
            "message_ids": sum(len(seen.ids) for seen in checkpoint.seen),
        },
        "torn_bytes": survey.torn_bytes,
        "damages": [
            {"file": d.name, "offset": d.start, "bytes": d.size, "reason": d.reason}
            for d in survey.damages
        ],
    }


def _amount_json(amount: Amount, now_ms: int) -> dict[str, object]:
    return {
        "messages": amount.messages,
        "bytes": amount.bytes,
        "first_number": amount.first or None,
        "last_number": amount.last or None,
        "oldest_time": time_text(amount.oldest_ms),
        "oldest_age_ms": max(0, now_ms - amount.oldest_ms) if amount.messages else None,
    }


def print_survey(path: Path, survey: Survey, now_ms: int) -> None:
    """Tables on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    size = sum(segment.bytes for segment in survey.segments)
    messages = sum(amount.messages for amount in survey.topics.values())
    console.print(
        f"{counted(len(survey.segments), 'segment')}, {decimal(size)};"
        f" {counted(messages, 'message')} in {counted(len(survey.topics), 'topic')};"
        f" {counted(len(survey.subscriptions), 'durable subscription')}"
    )
    if survey.checkpoint is not None:
        console.print(
            f"last checkpoint: {segment_name(survey.checkpoint_segment)},"
            f" numbers reserved below {survey.checkpoint.reserved}"
        )
    if survey.torn_bytes:
        console.print(f"torn tail: {survey.torn_bytes} bytes; the daemon cuts them off")
    for damage in survey.damages:
        console.print(f"damaged: {damage.name}: offset {damage.start}: {damage.reason}")
    for table in _tables(survey, now_ms):
        if table.row_count:
            console.print(table)


def _tables(survey: Survey, now_ms: int) -> Iterable[Table]:
    segments = _table("Segments", "", "file", "bytes", "records", "<first message", "<last message")
    for s in survey.segments:
        times = (time_text(s.first_ms) or "", time_text(s.last_ms) or "")
        segments.add_row(segment_name(s.sequence), decimal(s.bytes), str(s.records), *times)
    yield segments
    amount = ("messages", "bytes", "first", "last", "oldest")
    yield _topics("Topics", "all messages in the log", survey.topics, now_ms)
    columns = ("<owner", "<topic", "<name", "<kind", "cursor", *amount)
    subscriptions = _table("Durable subscriptions", "unsettled messages", "id", *columns)
    for _, its in sorted(survey.subscriptions.items()):
        state = its.state
        row = (state.owner, _text(state.topic), _text(state.name), _kind(state), str(its.cursor))
        subscriptions.add_row(str(state.id), *row, *_amount_row(its.unsettled, now_ms))
    yield subscriptions
    yield _topics("Kept", "messages for a first subscription", survey.kept, now_ms)
    yield _topics("Delayed", "messages that are to be published yet", survey.delayed, now_ms)


def _topics(title: str, caption: str, amounts: dict[bytes, Amount], now_ms: int) -> Table:
    table = _table(title, caption, "topic", "messages", "bytes", "first", "last", "oldest")
    for topic, amount in sorted(amounts.items()):
        table.add_row(_text(topic) if topic else "(delayed)", *_amount_row(amount, now_ms))
    return table


def _kind(state: SubscriptionState) -> str:
    """What sort of subscription it is."""
    if state.pattern:
        return "pattern"
    if state.parent:
        return f"of pattern {state.parent}"
    return "shared" if state.shared else "version 1"


def _table(title: str, caption: str, first: str, *columns: str) -> Table:
    table = Table(title=title, caption=caption or None, title_justify="left")
    table.add_column(first, overflow="fold")
    for column in columns:
        left = column.startswith("<")
        table.add_column(column.removeprefix("<"), justify="left" if left else "right")
    return table


def _amount_row(amount: Amount, now_ms: int) -> tuple[str, ...]:
    if not amount.messages:
        return "0", "0", "", "", ""
    return (
        str(amount.messages),
        decimal(amount.bytes),
        str(amount.first),
        str(amount.last),
        age_text(now_ms - amount.oldest_ms),
    )


def age_text(age_ms: int) -> str:
    """In the largest unit that it has two of."""
    seconds = max(0, age_ms) // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def counted(count: int, noun: str) -> str:
    """1 message, 2 messages."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def topic_text(topic: bytes) -> str:
    """A topic on one line, whatever characters it has."""
    text = topic.decode(errors="replace")
    return text if text.isprintable() else ascii(text)


def _text(topic: bytes) -> Text:
    return Text(topic_text(topic))
