"""Streams of Redis: XADD, and consumer groups with XREADGROUP and XACK."""

from __future__ import annotations

import re
import socket
from typing import Final

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.stream import connect
from tools.bench.load.wire import Refused
from tools.bench.load.work import Work
from tools.bench.peers.redis_wire import ask, before_last, command, refuse_errors

COUNT: Final = 500
"""What one XREADGROUP asks for, at the most."""
FIELD: Final = b"b"
_REPLY: Final = re.compile(rb"\*1\r\n\*2\r\n\$\d+\r\n[^\r]+\r\n\*(\d+)\r\n")
_ACKED: Final = re.compile(rb":(\d+)\r\n")


def group_name(place: int) -> bytes:
    """The consumer group of the subscriber at this place."""
    return b"group%d" % place


def _topic_of(work: Work, place: int) -> bytes:
    """The topic of a subscriber. Raises Refused when it has several."""
    topics = work.subscriber_topics(place)
    if len(topics) != 1:
        raise Refused("one subscriber of several streams is not measured")
    return work.topic(topics[0]).encode()


class StreamPublisher:
    """XADDs are pipelined, and each is answered by the id of its entry."""

    def __init__(self) -> None:
        self._half_answers = 0

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        return before_last(body_bytes, b"XADD", topic.encode(), b"*", FIELD), b"\r\n"

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        refuse_errors(data)
        lines = data.count(b"\n") + self._half_answers
        answers, self._half_answers = divmod(lines, 2)
        return data.rfind(b"\n") + 1, answers


class StreamSubscriber:
    """Each reply is acknowledged as a whole, along with the request for the next one."""

    def __init__(self, work: Work, place: int) -> None:
        self._topic = _topic_of(work, place)
        self._group = group_name(place)
        count = str(COUNT).encode()
        self._read = command(
            *(b"XREADGROUP", b"GROUP", self._group, b"consumer", b"COUNT", count, b"BLOCK", b"0"),
            *(b"STREAMS", self._topic, b">"),
        )
        sizes = "|".join(rf"{size}\r\n[\s\S]{{{size}}}" for size in sorted(set(work.sizes)))
        self._entry = re.compile(
            rf"\*2\r\n(\$\d+\r\n[\d-]+\r\n)\*2\r\n\$1\r\nb\r\n\$({sizes})\r\n".encode()
        )
        self._left = 0
        self._ids: list[bytes | bytearray] = []
        self._unacked = 0
        self._answer = b""

    def begin(self) -> bytes:
        return self._read

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        entry = self._entry.match
        while start < end:
            if not self._left:
                if not (size := self._head(data, start, end)):
                    break
                start += size
                continue
            found = entry(data, start, end)
            if not found:
                break
            arrivals.one(data, data.index(b"\n", found.start(2)) + 1)
            self._ids.append(found[1])
            start = found.end()
            self._left -= 1
            if not self._left:
                self._acknowledge()
        return start

    def _head(self, data: bytearray, start: int, end: int) -> int:
        """The bytes of what stands before entries, or between replies; 0: not whole yet."""
        if found := _REPLY.match(data, start, end):
            self._left = int(found[1])
            return found.end() - start
        if found := _ACKED.match(data, start, end):
            self._unacked -= int(found[1])
            return found.end() - start
        if data.startswith(b"-", start, end):
            raise Refused(data[start:end].decode(errors="replace").strip())
        return 0

    def _acknowledge(self) -> None:
        count = len(self._ids)
        words = command(b"XACK", self._topic, self._group)
        self._answer += b"*%d%b%b" % (3 + count, words[words.index(b"\r\n") :], b"".join(self._ids))
        self._answer += self._read
        self._unacked += count
        self._ids.clear()

    def answer(self) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    def barrier(self) -> bytes:
        return b""

    @property
    def settled(self) -> bool:
        """Every entry that came is acknowledged: an XACK tells how many it took."""
        return not (self._unacked or self._left)


@attrs.frozen
class RedisStreams:
    """A stream a topic, a group a subscriber; what an XADD promises is the server's setting."""

    name: str = "Redis Streams"

    def prepare(self, address: Address, work: Work) -> None:
        if not work.guarantee:
            raise Refused("XADD is always answered")
        with connect(address) as sock:
            for place in range(work.subscribers):
                topic = _topic_of(work, place)
                ask(sock, b"XGROUP", b"CREATE", topic, group_name(place), b"$", b"MKSTREAM")

    def conclude(self, address: Address, work: Work) -> None:
        with connect(address) as sock:
            ask(sock, b"DEL", *(work.topic(topic).encode() for topic in range(work.topics)))

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, StreamPublisher]:
        return connect(address), StreamPublisher()

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, StreamSubscriber]:
        return connect(address), StreamSubscriber(work, place)
