"""MQTT 3.1.1 on a raw socket, QoS 0 and 1.

Source: the OASIS standard "MQTT Version 3.1.1".
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from tools.bench.load.server import Address
from tools.bench.load.stream import connect, receive_exactly
from tools.bench.load.wire import Refused

PUBACK = 0x40
PUBACK_BYTES = 4
PINGREQ = b"\xc0\0"
PINGRESP = b"\xd0\0"
_CONNACK_ACCEPTED = b"\x20\x02\0\0"
_CLEAN_SESSION = 2


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(2) + value


def _packet(first: int, rest: bytes) -> bytes:
    """A packet with the length of its rest, seven bits a byte, the low ones first."""
    length = bytearray()
    left = len(rest)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (0x80 if left else 0))
        if not left:
            return bytes([first]) + length + rest


def publish(topic: bytes, body: bytes, packet_id: int = 0) -> bytes:
    """A publish: at QoS 1 if it has a packet id, which is never 0."""
    identifier = packet_id.to_bytes(2) if packet_id else b""
    return _packet(0x32 if packet_id else 0x30, _string(topic) + identifier + body)


def connected(address: Address, name: bytes) -> socket.socket:
    """A connection with a clean session and without keep-alive. Raises Refused."""
    sock = connect(address)
    head = _string(b"MQTT") + bytes([4, _CLEAN_SESSION]) + (0).to_bytes(2)
    sock.sendall(_packet(0x10, head + _string(name)))
    answer = receive_exactly(sock, len(_CONNACK_ACCEPTED))
    if answer != _CONNACK_ACCEPTED:
        raise Refused(f"CONNACK {answer.hex()}")
    return sock


def subscribe(sock: socket.socket, topics: Sequence[bytes], qos: int) -> None:
    """Subscribe at this QoS. Raises Refused."""
    wanted = b"".join(_string(topic) + bytes([qos]) for topic in topics)
    sock.sendall(_packet(0x82, (1).to_bytes(2) + wanted))
    granted = _packet(0x90, (1).to_bytes(2) + bytes([qos]) * len(topics))
    answer = receive_exactly(sock, len(granted))
    if answer != granted:
        raise Refused(f"SUBACK {answer.hex()}")


def pubacks(highs: bytes | bytearray, lows: bytes | bytearray) -> bytearray:
    """Acknowledgements of these packets, by the high and the low bytes of their ids."""
    acks = bytearray(bytes([PUBACK, 2, 0, 0]) * len(lows))
    acks[2::4] = highs
    acks[3::4] = lows
    return acks
