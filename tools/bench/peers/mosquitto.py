"""Mosquitto: MQTT 3.1.1, QoS 0 and 1, everything in memory."""

from __future__ import annotations

import socket
from pathlib import Path

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused
from tools.bench.load.work import Work
from tools.bench.peers.counting import Expected, Lap, Strides
from tools.bench.peers.mqtt_wire import (
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBACK_BYTES,
    connected,
    pubacks,
    publish,
    subscribe,
)
from tools.bench.peers.peer import Launch, PeerServer
from tools.bench.peers.process import HOST, find_program, first_line_of

_SETTINGS = {
    "persistence": "false",
    "max_inflight_messages": "0",
    "max_queued_messages": "0",
}
_PACKET_IDS = 65_535
_SOME_BODY = b"\xff" * 16
"""Stands for a body where only its place is asked for."""


def version() -> str:
    """As the server tells it. Raises Missing."""
    return first_line_of(find_program("mosquitto"), "-h")


def mosquitto_server(within: Path | None = None) -> PeerServer:
    """A server that holds back nothing, in flight or queued."""
    return PeerServer("Mosquitto", _SETTINGS, _launch, within)


def _launch(directory: Path, port: int) -> list[Launch]:
    path = directory / "mosquitto.conf"
    lines = [f"listener {port} {HOST}", "allow_anonymous true", "user root"]
    lines += [f"{key} {value}" for key, value in _SETTINGS.items()]
    path.write_text("\n".join(lines) + "\n")
    return [Launch([find_program("mosquitto"), "-c", str(path)], port)]


class MqttPublisher:
    """At QoS 1 the packet id tells the place in the ring, and PUBACKs come in that order."""

    def __init__(self, qos: int) -> None:
        self._qos = qos

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        if place >= _PACKET_IDS:
            raise Refused("more messages in the ring than MQTT has packet ids")
        body = _SOME_BODY.ljust(body_bytes, b"\0")
        frame = publish(topic.encode(), body, place + 1 if self._qos else 0)
        return frame[: len(frame) - body_bytes], b""

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        count = len(data) // PUBACK_BYTES
        end = count * PUBACK_BYTES
        if data[:end:PUBACK_BYTES].count(PUBACK) != count:
            raise Refused(f"not a PUBACK: {data[:64].hex()}")
        return end, count


class QosZeroSubscriber:
    """Every byte that comes is known beforehand."""

    def __init__(self, work: Work, place: int) -> None:
        self._expected = Expected(Lap.of(work, place, publish), (PINGRESP,))

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        return self._expected.take(data, start, end, arrivals)

    def answer(self) -> bytes:
        return b""

    def barrier(self) -> bytes:
        return PINGREQ

    @property
    def settled(self) -> bool:
        return bool(self._expected.interruptions)


class QosOneSubscriber:
    """Acknowledges every message by the packet id that it came with."""

    def __init__(self, work: Work, place: int) -> None:
        if len(set(work.sizes)) != 1:
            raise Refused("mixed sizes at QoS 1 are not measured with this peer")
        body = _SOME_BODY.ljust(work.sizes[0], b"\0")
        lengths = {len(work.topic(topic)) for topic in work.subscriber_topics(place)}
        if len(lengths) != 1:
            raise Refused("topics of several lengths at QoS 1 are not measured with this peer")
        frame = publish(work.topic(work.subscriber_topics(place)[0]).encode(), body, 1)
        self._frame_bytes = len(frame)
        self._body_at = len(frame) - len(body)
        self._strides = Strides(frame, self._body_at)
        self._answer = bytearray()
        self.settled = False

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        taken = self._strides.take(data, start, end, arrivals)
        if taken > start:
            at, size = start + self._body_at - 2, self._frame_bytes
            self._answer += pubacks(data[at:taken:size], data[at + 1 : taken : size])
        if data.startswith(PINGRESP, taken, end):
            self.settled = True
            taken += len(PINGRESP)
        return taken

    def answer(self) -> bytes:
        answer = bytes(self._answer)
        self._answer.clear()
        return answer

    def barrier(self) -> bytes:
        return PINGREQ


@attrs.frozen
class Mqtt:
    """MQTT at the QoS that the guarantee asks for."""

    name: str = "Mosquitto"

    def prepare(self, address: Address, work: Work) -> None:
        """Nothing has to be there beforehand."""

    def conclude(self, address: Address, work: Work) -> None:
        """Nothing is left."""

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, MqttPublisher]:
        return connected(address, b"publisher%d" % place), MqttPublisher(work.guarantee)

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, QosZeroSubscriber | QosOneSubscriber]:
        sock = connected(address, b"subscriber%d" % place)
        topics = [work.topic(topic).encode() for topic in work.subscriber_topics(place)]
        subscribe(sock, topics, work.guarantee)
        if work.guarantee:
            return sock, QosOneSubscriber(work, place)
        return sock, QosZeroSubscriber(work, place)
