"""Any bytes in any cuts are decoded as the format says, by both kinds of loops alike.

An input is: version and size of the properties, number of read sizes, those, the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from blipmq.protocol import decoder, loops, run, scan, span, speed
from blipmq.protocol.frames import Frame
from tests.fuzz.choices import Choices
from tests.protocol.reference import Read, read, read_item
from tests.protocol.streams import cut, decode

_USERS: Final[tuple[tuple[ModuleType, tuple[str, ...]], ...]] = (
    (decoder, ("scan_topics",)),
    (scan, ("scan_publishes",)),
    (run, ("stamp_range", "stamp_offsets")),
    (span, ("stamp_offsets",)),
)
"""Who calls the loops, and which."""
_PROPERTIES_MAX: Final = (65_535, 16_384, 40, 0)
_FIRST_NUMBERS: Final = (1, 2**16 - 3, 2**48 - 3, 2**64 - 2**24)
_LENGTHS_MAX: Final = (16 * 1024 * 1024, 65_546, 40, 16 * 1024 * 1024)


@contextmanager
def using(these: ModuleType) -> Iterator[None]:
    """The protocol calls the loops of this module."""
    try:
        for module, names in _USERS:
            for name in names:
                setattr(module, name, getattr(these, name))
        yield
    finally:
        for module, names in _USERS:
            for name in names:
                setattr(module, name, getattr(speed, name))


Decoded = tuple[list[Read], bool, list[bytes]]
"""The frames, whether an error of framing ended them, and the messages as they were numbered."""


def check(data: bytes) -> None:
    """Raises for bytes that are not decoded as the format says."""
    choices = Choices(data)
    flags = choices.number()
    version, first = 1 + (flags & 1), _FIRST_NUMBERS[flags >> 1 & 3]
    properties_max, length_max = _PROPERTIES_MAX[flags >> 3 & 3], _LENGTHS_MAX[flags >> 5 & 3]
    sizes = [1 + choices.number(2) for _ in range(1 + choices.number() % 4)]
    stream = choices.rest()

    def decoded() -> Decoded:
        reader = decoder.Decoder(length_max)
        reader.version, reader.properties_max = version, properties_max
        items, broken = decode(reader, cut(stream, sizes))
        frames = [frame for item in items for frame in read_item(item)]
        messages = []
        number = first
        for item in items:
            if not isinstance(item, Frame):
                before = list(item.correlation_ids())
                item.stamp(number)
                number += item.count
                assert not item.qos or list(item.correlation_ids()) == before
                messages.append(bytes(item.data()))
        return frames, broken, messages

    results: list[Decoded] = []
    for name in (loops, speed):
        with using(name):
            results.append(decoded())
    assert results[0] == results[1]

    frames, broken, messages = results[0]
    expected, expected_broken = read(stream, length_max, version, properties_max)
    assert broken == expected_broken
    assert [frame.data for frame in frames] == [frame.data for frame in expected]
    numbered = read(b"".join(messages), version=2)[0]
    whole = [frame for frame in expected if frame.message and (frame.type == 3 or version > 1)]
    assert [frame.payload for frame in numbered] == [frame.payload for frame in whole]
    assert [frame.correlation_id for frame in numbered] == [
        first + place for place in range(len(whole))
    ]
