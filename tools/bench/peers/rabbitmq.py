"""RabbitMQ: AMQP 0-9-1 with publisher confirms, a prefetch, and acknowledgements in multiples."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final, Literal

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused
from tools.bench.load.work import Miscounted, Work
from tools.bench.peers.amqp_wire import (
    ACK_BYTES,
    ACK_HEAD,
    CONFIRM,
    CONFIRM_OK,
    DELIVER_TAG_AT,
    QOS,
    QOS_OK,
    ack,
    call,
    connected,
    consume,
    declare_queue,
    delete_queue,
    deliver,
    method,
    prefetch_at_most,
    publish,
)
from tools.bench.peers.counting import Strides
from tools.bench.peers.peer import Launch, PeerServer
from tools.bench.peers.process import HOST, find_program, free_port

PREFETCH: Final = 500
QueueKind = Literal["transient", "durable", "quorum"]
"""Classic queues with messages in memory, or on disk; or a quorum of this one node."""
_BIN: Final = "/usr/lib/rabbitmq/bin"
"""Where Debian has the programs themselves; those on its path change the user."""
_SOME_BODY: Final = b"\xff" * 16
"""Stands for a body where only its place is asked for."""


def version() -> str:
    """As the directory of its code is named. Raises Missing.

    To ask the server's own tool would leave a process behind: the one that knows the nodes' ports.
    """
    program = Path(find_program(f"{_BIN}/rabbitmq-server", "rabbitmq-server")).resolve()
    names = [path.name.partition("rabbitmq_server-")[2] for path in program.parents]
    return " ".join(("RabbitMQ", *filter(None, names)))


def rabbitmq_server(within: Path | None = None) -> PeerServer:
    """A node of its own, with the settings that it comes with."""
    return PeerServer("RabbitMQ", {"plugins": "none"}, _launch, within)


def _launch(directory: Path, port: int) -> list[Launch]:
    program = find_program(f"{_BIN}/rabbitmq-server", "rabbitmq-server")
    # It would start the daemon that knows the nodes' ports, and leave it behind.
    epmd_port = free_port()
    epmd = ["epmd", "-port", str(epmd_port), "-address", HOST]
    names = {"ERL_EPMD_PORT": str(epmd_port), "ERL_EPMD_ADDRESS": HOST}
    (directory / "enabled_plugins").write_text("[].\n")
    (directory / "rabbitmq.conf").write_text("")
    environment = names | {
        "HOME": str(directory),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        # Else a shell stays in between, which is not what is to be measured and ended.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
    return [Launch(epmd, epmd_port), Launch([program], port, environment)]


class ConfirmedPublisher:
    """Confirms name a message, or all up to one; in which order is up to the server."""

    def __init__(self, *, persistent: bool) -> None:
        self.persistent = persistent
        self._floor = 0
        self._ahead: set[int] = set()

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        body = _SOME_BODY.ljust(body_bytes, b"\0")
        frames = publish(topic.encode(), body, persistent=self.persistent)
        at = frames.index(body)
        return frames[:at], frames[at + body_bytes :]

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        end = len(data) // ACK_BYTES * ACK_BYTES
        count = 0
        for head, tag, multiple, _ in struct.iter_unpack(">11sQBB", data[:end]):
            if head != ACK_HEAD:
                raise Refused(f"not a confirm: {data[:200]!r}")
            count += self._confirm_up_to(tag) if multiple else self._confirm(tag)
        return end, count

    def _confirm_up_to(self, tag: int) -> int:
        count = tag - self._floor
        self._floor = tag
        passed = {other for other in self._ahead if other <= tag}
        self._ahead -= passed
        self._join()
        return count - len(passed)

    def _confirm(self, tag: int) -> int:
        if tag <= self._floor or tag in self._ahead:
            raise Miscounted(f"message {tag} was confirmed twice")
        self._ahead.add(tag)
        self._join()
        return 1

    def _join(self) -> None:
        """Raise the floor over what is confirmed next to it."""
        while self._floor + 1 in self._ahead:
            self._floor += 1
            self._ahead.remove(self._floor)


class QueueSubscriber:
    """Acknowledges all that one read brought by its last delivery tag."""

    def __init__(self, work: Work, place: int, *, persistent: bool) -> None:
        topics = [work.topic(topic) for topic in work.subscriber_topics(place)]
        if len(set(work.sizes)) != 1 or len({len(topic) for topic in topics}) != 1:
            raise Refused("only messages of one size are measured with this peer")
        body = _SOME_BODY.ljust(work.sizes[0], b"\0")
        frames = deliver(topics[0].encode(), body, 0, persistent=persistent)
        self._size = len(frames)
        self._strides = Strides(frames, frames.index(body))
        self._barrier_answer = method(QOS_OK)
        self._acked = self._seen = 0
        self.settled = False

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        if data.startswith(self._barrier_answer, start, end):
            self.settled = True
            return start + len(self._barrier_answer)
        taken = self._strides.take(data, start, end, arrivals)
        if taken > start:
            tag_at = taken - self._size + DELIVER_TAG_AT
            self._seen = int.from_bytes(data[tag_at : tag_at + 8])
            if self._seen != arrivals.received:
                raise Miscounted(f"delivery {self._seen:,} is message {arrivals.received:,}")
        return taken

    def answer(self) -> bytes:
        if self._seen == self._acked:
            return b""
        self._acked = self._seen
        return ack(self._seen, multiple=True)

    def barrier(self) -> bytes:
        return method(QOS, prefetch_at_most(PREFETCH))


@attrs.frozen
class RabbitQueues:
    """A queue a subscriber, bound to its topics."""

    kind: QueueKind

    @property
    def name(self) -> str:
        return f"RabbitMQ {self.kind}"

    @property
    def persistent(self) -> bool:
        return self.kind != "transient"

    def prepare(self, address: Address, work: Work) -> None:
        if not work.guarantee:
            raise Refused("queues of RabbitMQ are measured with confirms and acknowledgements")
        kind = b"quorum" if self.kind == "quorum" else b"classic"
        with connected(address) as sock:
            for place in range(work.subscribers):
                topics = [work.topic(topic).encode() for topic in work.subscriber_topics(place)]
                declare_queue(sock, queue_name(place), topics, durable=self.persistent, kind=kind)

    def conclude(self, address: Address, work: Work) -> None:
        with connected(address) as sock:
            for place in range(work.subscribers):
                delete_queue(sock, queue_name(place))

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, ConfirmedPublisher]:
        sock = connected(address)
        call(sock, CONFIRM, b"\0", CONFIRM_OK)
        return sock, ConfirmedPublisher(persistent=self.persistent)

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, QueueSubscriber]:
        sock = connected(address)
        consume(sock, queue_name(place), PREFETCH)
        return sock, QueueSubscriber(work, place, persistent=self.persistent)


def queue_name(place: int) -> bytes:
    """The queue of the subscriber at this place."""
    return b"queue%d" % place
