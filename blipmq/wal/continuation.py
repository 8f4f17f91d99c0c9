"""Which segments belong together: what each says of the next, and the last one of the others.

A segment names its successor in its last record. That is written when the successor is on the disk
with its checkpoint, so no crash takes away a successor that is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from blipmq.wal.disk import Disk
from blipmq.wal.encoding import CONTINUED_BYTES, decode, encode
from blipmq.wal.facts import Continued
from blipmq.wal.record import RECORD_HEADER, SEGMENT_HEADER_BYTES, parse_segment_header, records
from blipmq.wal.segment import SECTOR, segment_name, written_end

FOREIGN: Final = "this segment is of another log"


def salt_of(disk: Disk, sequence: int) -> int:
    """The salt in the header of a segment. Raises ValueError saying what is wrong, and OSError."""
    found, salt = parse_segment_header(bytes(disk.read(segment_name(sequence))[:32]))
    if found != sequence:
        raise ValueError(f"this is segment {found} under another name")
    return salt


def continued(disk: Disk, sequence: int) -> Continued | None:
    """What a segment says of its successor; None if it says nothing. Raises OSError."""
    with memoryview(disk.read(segment_name(sequence))) as data:
        try:
            _, salt = parse_segment_header(data[:SEGMENT_HEADER_BYTES].tobytes())
        except ValueError:
            return None
        stop = written_end(data, SEGMENT_HEADER_BYTES)
        start = max(SEGMENT_HEADER_BYTES, stop - CONTINUED_BYTES)
        with data[:stop] as written:
            for id_, body, end in records(written, start, salt):
                try:
                    facts = decode(id_, written[body:end].tobytes())
                except ValueError:
                    return None  # who reads all of the segment says what is wrong with it
                for fact in facts:
                    if isinstance(fact, Continued):
                        return fact
    return None


@attrs.frozen
class Successor:
    """A segment that continues another one; `id` is that of its first record."""

    sequence: int
    salt: int
    id: int

    @classmethod
    def of(cls, disk: Disk, sequence: int) -> Successor | None:
        """None if the segment does not begin as one does. Raises OSError."""
        head_bytes = SEGMENT_HEADER_BYTES + RECORD_HEADER.size
        head = bytes(disk.read(segment_name(sequence))[:head_bytes])
        try:
            found, salt = parse_segment_header(head[:SEGMENT_HEADER_BYTES])
        except ValueError:
            return None
        if found != sequence or len(head) < head_bytes:
            return None
        return cls(sequence, salt, RECORD_HEADER.unpack_from(head, SEGMENT_HEADER_BYTES)[0])

    def is_named_in(self, tail: bytes, start: int, salt: int) -> bool:
        """Whether the tail of a segment with that salt is what a crash left of its last record.

        That is the record that names this segment, without its end, or without its beginning in
        another sector. The tail begins at `start`, and does not end in zeros.
        """
        whole = b"".join(encode(Continued(self.sequence, self.salt), self.id, salt))
        missing = -start % SECTOR
        return whole.startswith(tail) or tail == bytes(missing) + whole[missing:]

    def unfinished_end(self, disk: Disk, sequence: int) -> int | None:
        """Where the records of the segment before end, if the one that names this one is torn.

        Raises OSError.
        """
        with memoryview(disk.read(segment_name(sequence))) as data:
            try:
                _, salt = parse_segment_header(data[:SEGMENT_HEADER_BYTES].tobytes())
            except ValueError:
                return None
            ends = [SEGMENT_HEADER_BYTES]
            for _, _, end in records(data, SEGMENT_HEADER_BYTES, salt):
                ends[0] = end
            start = ends[0]
            stop = written_end(data, start)
            if start < stop <= start + CONTINUED_BYTES and self.is_named_in(
                data[start:stop].tobytes(), start, salt
            ):
                return start
            return None


def stranger(
    expected: Mapping[int, int],
    found: Mapping[int, int],
    last: int,
    last_salt: int,
    before: Continued | None,
) -> tuple[int, str] | None:
    """A segment that does not belong to the others, and why; None if all belong together.

    `expected` are the salts of older segments that the checkpoint of the `last` one gives, `found`
    those that they have. `before` is what the segment before the last one says.
    """
    wrong = sorted(s for s, salt in expected.items() if s in found and found[s] != salt)
    right = any(found.get(s) == salt for s, salt in expected.items())
    if wrong and right:
        return wrong[0], FOREIGN
    if wrong:
        return last, f"{FOREIGN} than {segment_name(wrong[0])}"
    if before is not None and before != Continued(last, last_salt):
        return last, f"{FOREIGN} than {segment_name(last - 1)}"
    return None
