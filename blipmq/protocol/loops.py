"""The loops that look at every frame, in plain Python; `_loops.c` has the same ones, compiled.

Both give the same results for the same arguments; `blipmq.protocol.speed` says which are used.
"""

from __future__ import annotations

import struct
from array import array

from blipmq.protocol.frames import (
    CORRELATION_ID_AT,
    LENGTH_BYTES,
    LENGTH_MIN,
    PUBLISH,
    QOS_AT,
    TOPIC_AT,
    TYPE_AT,
    U32,
    U64,
)

_PUBLISH_HEAD = struct.Struct(">IB8xBH")
"""Length, type, QoS and topic length."""
_STRIDE_WORTH_IT = 8
"""From this many frames on, eight strided slices cost less than a loop over the frames."""
_LOW_NUMBERS = 2**16
_HIGH_BYTES = bytes(number >> 8 for number in range(_LOW_NUMBERS))
_LOW_BYTES = bytes(range(256)) * 256
"""The last byte but one, and the last one, of the numbers below `_LOW_NUMBERS`."""


def scan_publishes(
    buffer: bytearray | bytes, start: int, end: int, stride: int, head: bytes, length_max: int
) -> array[int]:
    """The offsets of the PUBLISH frames with this head that follow the one at `start`.

    That one takes `stride` bytes. `end` is where the received bytes end.
    """
    unpack_from, startswith = U32.unpack_from, buffer.startswith
    length_min = LENGTH_MIN + len(head)
    offsets = array("I", (start, start + stride))
    at = start + stride
    last = end - LENGTH_BYTES - length_min
    while at <= last:
        if buffer[at + TYPE_AT] != PUBLISH or not startswith(head, at + QOS_AT):
            break
        (length,) = unpack_from(buffer, at)
        at += LENGTH_BYTES + length
        if not length_min <= length <= length_max or at > end:
            break
        offsets.append(at)
    return offsets


def scan_topics(
    buffer: bytearray | bytes,
    start: int,
    end: int,
    length_max: int,
    known: dict[bytes, bytes],
    known_max: int,
) -> tuple[array[int], list[bytes]]:
    """The offsets and topics of the QoS 0 PUBLISH frames that follow each other from `start` on.

    `end` is where the received bytes end. Stops at the first that is not whole or not well-formed.
    `known` are topics that were seen before; new ones are added, and all forgotten at `known_max`.
    """
    unpack_from, view = _PUBLISH_HEAD.unpack_from, memoryview(buffer)
    offsets = array("I", (start,))
    topics: list[bytes] = []
    at = start
    last = end - TOPIC_AT - 1
    while at <= last:
        length, type_, qos, topic_length = unpack_from(buffer, at)
        behind = at + LENGTH_BYTES + length
        if type_ != PUBLISH or qos or behind > end or length > length_max:
            break
        stop = at + TOPIC_AT + topic_length
        if stop > behind:
            break
        name = bytes(view[at + TOPIC_AT : stop])
        topic = known.get(name)
        if topic is None:
            if not _is_topic(name):
                break
            if len(known) >= known_max:
                known.clear()
            topic = known[name] = name
        topics.append(topic)
        offsets.append(behind)
        at = behind
    return offsets, topics


def _is_topic(name: bytes) -> bool:
    try:
        return bool(name.decode())
    except UnicodeDecodeError:
        return False


def stamp_range(buffer: bytearray, start: int, stride: int, count: int, first: int) -> None:
    """Number `count` frames of `stride` bytes, the first of which is at `start`."""
    if count < _STRIDE_WORTH_IT:
        for i in range(count):
            U64.pack_into(buffer, start + stride * i + CORRELATION_ID_AT, first + i)
        return
    done = 0
    while done < count:
        # As far as only the low two bytes of the numbers differ.
        high, low = divmod(first + done, _LOW_NUMBERS)
        stop = min(count, done + _LOW_NUMBERS - low)
        part = slice(low, low + stop - done)
        at = start + stride * done + CORRELATION_ID_AT
        end = at + stride * (stop - done - 1) + 1
        for i, byte in enumerate(high.to_bytes(6, "big")):
            buffer[at + i : end + i : stride] = bytes((byte,)) * (stop - done)
        buffer[at + 6 : end + 6 : stride] = _HIGH_BYTES[part]
        buffer[at + 7 : end + 7 : stride] = _LOW_BYTES[part]
        done = stop


def stamp_offsets(buffer: bytearray, offsets: array[int], first: int) -> None:
    """Number the frames that begin at all offsets but the last."""
    pack_into = U64.pack_into
    for number, offset in enumerate(offsets[:-1], first):
        pack_into(buffer, offset + CORRELATION_ID_AT, number)
