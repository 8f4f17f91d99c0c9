"""JetStream: a stream a topic, limits retention, push consumers, explicit acknowledgements."""

from __future__ import annotations

import json
import re
import socket
from typing import Final, Literal

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused
from tools.bench.load.work import Work
from tools.bench.peers.nats_wire import PING, PONG, connected, publish, request, subscribe

MAX_ACK_PENDING: Final = 5000
_INFO_MESSAGE: Final = re.compile(rb"MSG [^ ]+ 2 \d+\r\n([^\r]*)\r\n")
_ACK_WAIT_NS: Final = 30 * 10**9
Storage = Literal["memory", "file"]


def stream_name(topic: int) -> str:
    """The stream of the topic with this number."""
    return f"STREAM{topic}"


def consumer_name(place: int) -> str:
    """The consumer of the subscriber at this place."""
    return f"CONSUMER{place}"


def _deliveries(place: int) -> str:
    return f"deliveries.{place}"


def _info_inbox(place: int) -> bytes:
    return b"_INBOX.subscriber%d" % place


def _topic_of(work: Work, place: int) -> int:
    """The topic of a subscriber. Raises Refused when it has several."""
    topics = work.subscriber_topics(place)
    if len(topics) != 1:
        raise Refused("one subscriber of several streams is not measured")
    return topics[0]


class JetStreamPublisher:
    """Every publish is answered with the number of its message in the stream."""

    def __init__(self, answers: bytes) -> None:
        self._answers = answers
        self._half_answers = 0

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        return publish(topic.encode(), body_bytes, self._answers), b"\r\n"

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        end = data.rfind(b"\n") + 1
        if b'"error"' in data or b"-ERR" in data:
            raise Refused(data.decode(errors="replace"))
        # An answer is two lines, and a question of the server, which may stand between, is one.
        lines = data.count(b"\n") - data.count(PING) + self._half_answers
        answers, self._half_answers = divmod(lines, 2)
        return end, answers


class JetStreamSubscriber:
    """Acknowledges every message; the acknowledgements of one read go in one piece."""

    def __init__(self, work: Work, place: int) -> None:
        stream, consumer = stream_name(_topic_of(work, place)), consumer_name(place)
        info = f"$JS.API.CONSUMER.INFO.{stream}.{consumer}".encode()
        self._info = publish(info, 0, _info_inbox(place)) + b"\r\n"
        sizes = "|".join(rf"{size}\r\n[\s\S]{{{size}}}" for size in sorted(set(work.sizes)))
        self._message = re.compile(rf"MSG [^ ]+ 1 ([^ ]+) ({sizes})\r\n".encode())
        self._answer = b""
        self.settled = False

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        replies: list[bytes | bytearray] = []
        match, one = self._message.match, arrivals.one
        while True:
            if found := match(data, start, end):
                replies.append(found[1])
                one(data, data.index(b"\n", found.start(2)) + 1)
                start = found.end()
            elif size := self._other(data, start, end):
                start += size
            else:
                break
        if replies:
            self._answer += b"PUB %b 0\r\n\r\n" % b" 0\r\n\r\nPUB ".join(replies)
        return start

    def _other(self, data: bytearray, start: int, end: int) -> int:
        """The bytes of what is not a message; 0 when nothing has come, or not the whole of it."""
        if data.startswith(PING, start, end):
            self._answer += PONG
            return len(PING)
        if data.startswith(b"-ERR", start, end):
            raise Refused(data[start:end].decode(errors="replace"))
        if found := _INFO_MESSAGE.match(data, start, end):
            info = json.loads(found[1])
            self.settled = not (info["num_pending"] or info["num_ack_pending"])
            if not self.settled:
                self._answer += self._info
            return found.end() - start
        return 0

    def answer(self) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    def barrier(self) -> bytes:
        return self._info


@attrs.frozen
class JetStream:
    """Streams in memory, or in files, which it does not sync before it answers."""

    storage: Storage

    @property
    def name(self) -> str:
        return f"JetStream {self.storage}"

    def prepare(self, address: Address, work: Work) -> None:
        if not work.guarantee:
            raise Refused("JetStream publishes are always answered")
        with connected(address) as sock:
            for topic in range(work.topics):
                self._make_stream(sock, topic, work.topic(topic))
            for place in range(work.subscribers):
                self._make_consumer(sock, _topic_of(work, place), place)

    def _make_stream(self, sock: socket.socket, topic: int, subject: str) -> None:
        request(
            sock,
            f"$JS.API.STREAM.CREATE.{stream_name(topic)}",
            name=stream_name(topic),
            subjects=[subject],
            storage=self.storage,
            retention="limits",
            discard="old",
            max_consumers=-1,
            max_msgs=-1,
            max_bytes=-1,
            max_age=0,
            num_replicas=1,
        )

    def _make_consumer(self, sock: socket.socket, topic: int, place: int) -> None:
        stream, consumer = stream_name(topic), consumer_name(place)
        request(
            sock,
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}",
            stream_name=stream,
            config={
                "durable_name": consumer,
                "deliver_subject": _deliveries(place),
                "deliver_policy": "all",
                "replay_policy": "instant",
                "ack_policy": "explicit",
                "ack_wait": _ACK_WAIT_NS,
                "max_ack_pending": MAX_ACK_PENDING,
            },
        )

    def conclude(self, address: Address, work: Work) -> None:
        with connected(address) as sock:
            for topic in range(work.topics):
                request(sock, f"$JS.API.STREAM.DELETE.{stream_name(topic)}")

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, JetStreamPublisher]:
        sock = connected(address)
        answers = b"_INBOX.publisher%d" % place
        subscribe(sock, [answers])
        return sock, JetStreamPublisher(answers)

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, JetStreamSubscriber]:
        sock = connected(address)
        subscribe(sock, [_deliveries(place).encode(), _info_inbox(place)])
        return sock, JetStreamSubscriber(work, place)
