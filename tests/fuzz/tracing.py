"""Of any messages those are found that carry a sampled trace context, and no others.

An input is a row of messages: the context of each is one that is right, one with a byte changed,
or any bytes; the bodies of some look like the property.
"""

from __future__ import annotations

from typing import Final

from blipmq.protocol import encoder
from blipmq.protocol.properties import MessageProperties, encode_message_properties
from blipmq.protocol.run import made_run
from blipmq.protocol.trace_context import TraceContext, sampled_contexts
from tests.fuzz.choices import Choices

SAMPLED: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_LOOKS_ALIKE: Final = b"\7\0\x37" + SAMPLED.encode()
_MESSAGES_MAX: Final = 20


def check(data: bytes) -> None:
    """Raises when one is missed, or seen where there is none."""
    choices = Choices(data)
    contexts: list[str | None] = []
    frames: list[bytes] = []
    while choices and len(frames) < _MESSAGES_MAX:
        kind = choices.number()
        context = _context(kind, choices)
        properties = MessageProperties(trace_context=context, headers=(("n", b"v" * (kind >> 5)),))
        body = _LOOKS_ALIKE * (kind >> 2 & 1) + choices.take(choices.number() % 8)
        body += b"x" * (200 * (kind >> 3 & 1))
        encoded = encode_message_properties(properties)
        frames.append(encoder.message(0, 1, b"t", encoded, body))
        contexts.append(context)
    if not frames:
        return
    expected = []
    for index, context in enumerate(contexts):
        parsed = None if context is None else TraceContext.parse(context)
        if parsed is not None:
            assert context is not None
            assert TraceContext.parse(str(parsed)) == parsed
            assert context[:53] == str(parsed)[:53]
            if parsed.sampled:
                expected.append((index, parsed))
    run = made_run(b"t", 1, frames)
    assert list(sampled_contexts(run)) == expected
    start, stop = len(frames) // 3, len(frames) - len(frames) // 4
    part = [(index, context) for index, context in expected if start <= index < stop]
    assert list(sampled_contexts(run, start, stop)) == part


def _context(kind: int, choices: Choices) -> str | None:
    match kind & 3:
        case 0:
            return None
        case 1:
            return SAMPLED
        case 2:
            at = choices.number() % len(SAMPLED)
            return SAMPLED[:at] + chr(choices.number() & 0x7F) + SAMPLED[at + 1 :]
        case _:
            return choices.take(choices.number() % 64).decode("latin-1")
