"""Counting frames as they arrive, many at a time. Knows no protocol and no socket.

`Expected` is for streams that are known beforehand but for their time stamps, `Strides` for frames
of one size of which parts, such as tags, are known only when they come.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import STAMP
from tools.bench.load.ring import bodies, stamped
from tools.bench.load.wire import Refused
from tools.bench.load.work import Miscounted, Work

_COMPARED_BYTES = 1 << 18
"""What is compared in one piece, at the most."""
Delivered = Callable[[bytes, bytes], bytes]
"""The frame in which a message arrives, by its topic and body."""


@attrs.define
class Lap:
    """What one subscriber gets, in order, before it begins anew."""

    frames: bytes
    ends: list[int]
    stamps: list[int]
    """Where time stamps are; what stands there is not known."""

    @classmethod
    def of(cls, work: Work, place: int, delivered: Delivered) -> Lap:
        """What the subscriber at this place gets. Raises Refused: not from a single publisher."""
        sources = [source for source in range(work.publishers) if work.common(source, place)]
        if len(sources) != 1:
            raise Refused("several publishers for one subscriber are not measured with this peer")
        wanted = {work.topic(topic) for topic in work.subscriber_topics(place)}
        with_stamp = set(stamped(work, sources[0]))
        frames, ends, stamps = bytearray(), list[int](), list[int]()
        for at, (topic, body) in enumerate(bodies(work, sources[0])):
            if topic in wanted:
                frame = delivered(topic.encode(), body)
                if at in with_stamp:
                    stamps.append(len(frames) + frame.rindex(body))
                frames += frame
                ends.append(len(frames))
        return cls(bytes(frames), ends, stamps)


class Expected:
    """Compares every byte but the time stamps with what must come.

    So nothing is missing, doubled or out of order where this says nothing. `Interruptions` are
    frames of another kind that may stand between messages, each a fixed string.
    """

    def __init__(self, lap: Lap, interruptions: Sequence[bytes] = ()) -> None:
        self.interruptions: list[bytes] = []
        """Those that came; whoever uses this may take them out."""
        self._ends = lap.ends
        self._size = lap.ends[-1]
        laps = _COMPARED_BYTES // self._size + 2
        self._frames = lap.frames * laps
        self._stamps = [each * self._size + at for each in range(laps) for at in lap.stamps]
        self._known = interruptions
        self._at = 0
        self._laps = 0
        self._stamp = bytearray()

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        """Count what has arrived; where the rest begins: an interruption that is not whole.

        Raises Miscounted.
        """
        with memoryview(data) as view:
            while start < end:
                piece = view[start : min(end, start + _COMPARED_BYTES)]
                start += (agreed := self._compare(piece, arrivals))
                if agreed < len(piece):
                    size = self._interruption(bytes(view[start : min(end, start + 64)]))
                    if not size:
                        break
                    start += size
        arrivals.received = self._laps * len(self._ends) + bisect_right(self._ends, self._at)
        return start

    def _compare(self, arrived: memoryview, arrivals: Arrivals) -> int:
        """How many of these bytes are as expected; they are done with."""
        begin, end = self._at, self._at + len(arrived)
        agreed = begin
        # A stamp that began in what came before may go on here.
        first = max(0, bisect_left(self._stamps, begin) - 1)
        for index in range(first, len(self._stamps)):
            stamp = self._stamps[index]
            if stamp >= end:
                break
            if stamp + STAMP.size <= begin:
                continue
            if stamp > agreed and not self._frames.startswith(
                arrived[agreed - begin : stamp - begin], agreed
            ):
                break
            agreed = min(end, stamp + STAMP.size)
            self._gather(arrived[max(stamp, begin) - begin : agreed - begin], arrivals)
        rest = arrived[agreed - begin :]
        if self._frames.startswith(rest, agreed):
            agreed = end
        else:
            agreed += self._agreeing(bytes(rest), agreed)
        laps, self._at = divmod(agreed, self._size)
        self._laps += laps
        return agreed - begin

    def _gather(self, part: memoryview, arrivals: Arrivals) -> None:
        self._stamp += part
        if len(self._stamp) == STAMP.size:
            arrivals.latencies.add(arrivals.now_ns - STAMP.unpack(self._stamp)[0])
            self._stamp.clear()

    def _agreeing(self, arrived: bytes, at: int) -> int:
        """How many bytes agree, in which there is no stamp before the first that does not."""
        low, high = 0, len(arrived)
        while low < high:
            middle = (low + high + 1) // 2
            if self._frames.startswith(arrived[:middle], at):
                low = middle
            else:
                high = middle - 1
        return low

    def _interruption(self, came: bytes) -> int:
        """The bytes of the interruption that goes on here; 0: the rest of it is to come."""
        index = bisect_right(self._ends, self._at)
        begin = self._ends[index - 1] if index else 0
        # What an interruption has in common with a message was taken for one.
        common = self._frames[begin : self._at]
        for known in self._known:
            if (common + came).startswith(known):
                self.interruptions.append(known)
                self._at = begin
                return len(known) - len(common)
            if known.startswith(common + came):
                return 0
        received = self._laps * len(self._ends) + index
        raise Miscounted(f"after {received:,} messages came {came!r}, which is not what follows")


class Strides:
    """Frames of one size, each with a body that `Arrivals` looks at."""

    def __init__(self, frame: bytes, body_at: int) -> None:
        """Frames as long as this one that begin with its first byte, the body at that place."""
        self._size = len(frame)
        self._lead = frame[0]
        self._body_at = body_at

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        """Count the whole frames; where the next one begins, of this kind or another.

        Raises Miscounted.
        """
        count = (end - start) // self._size
        leads = data[start : start + count * self._size : self._size]
        if leads.count(self._lead) != count:
            count -= len(leads.lstrip(bytes([self._lead])))
        arrivals.column(data, start + self._body_at, self._size, count)
        return start + count * self._size
