"""The NATS client protocol on a raw socket, and requests of JetStream's JSON interface.

Source: the references of the client protocol and of JetStream's wire interface in the documentation
of NATS. A message is published as `PUB` and delivered as `MSG`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence

from tools.bench.load.server import Address
from tools.bench.load.stream import connect, receive_exactly, receive_until
from tools.bench.load.wire import Refused

PING = b"PING\r\n"
PONG = b"PONG\r\n"
_ANSWERS = b"_INBOX.requests"


def publish(topic: bytes, body_bytes: int, reply: bytes = b"") -> bytes:
    """What stands before a body; with `reply`, whoever receives it answers there.

    CR LF stands behind it.
    """
    return b"PUB %b %b%d\r\n" % (topic, reply + b" " if reply else b"", body_bytes)


def message(topic: bytes, body: bytes, subscription: int = 1) -> bytes:
    """What a subscriber receives of a publish without a reply."""
    return b"MSG %b %d %d\r\n%b\r\n" % (topic, subscription, len(body), body)


def connected(address: Address) -> socket.socket:
    """A connection that has been greeted. Raises Refused."""
    sock = connect(address)
    receive_until(sock, b"\r\n")  # INFO
    options = {"verbose": False, "pedantic": False, "lang": "bench", "version": "1", "protocol": 1}
    sock.sendall(b"CONNECT %b\r\n" % json.dumps(options).encode())
    flush(sock)
    return sock


def subscribe(sock: socket.socket, topics: Sequence[bytes]) -> None:
    """Subscribe to topics as 1, 2, 3 and so on. Raises Refused."""
    sock.sendall(b"".join(b"SUB %b %d\r\n" % (topic, n) for n, topic in enumerate(topics, 1)))
    flush(sock)


def flush(sock: socket.socket) -> None:
    """Return when the server has dealt with all that was sent before.

    Raises Refused when anything but the answer comes.
    """
    sock.sendall(PING)
    if (line := _line(sock)) != PONG:
        raise Refused(line.decode(errors="replace").strip())


def request(sock: socket.socket, topic: str, **asked: object) -> Mapping[str, object]:
    """The answer of JetStream to a request. Raises Refused when it is an error."""
    body = json.dumps(asked).encode()
    sock.sendall(b"SUB %b 99\r\n" % _ANSWERS)
    sock.sendall(publish(topic.encode(), len(body), _ANSWERS) + body + b"\r\n")
    line = _line(sock)
    if not line.startswith(b"MSG "):
        raise Refused(line.decode(errors="replace").strip())
    body = receive_exactly(sock, int(line.split()[-1]) + 2)
    sock.sendall(b"UNSUB 99\r\n")
    answer: dict[str, object] = json.loads(body)
    if "error" in answer:
        raise Refused(f"{topic}: {answer['error']}")
    return answer


def _line(sock: socket.socket) -> bytes:
    """The next line that is not the server asking whether the client is there."""
    while (line := receive_until(sock, b"\r\n")) == PING:
        sock.sendall(PONG)
    return line
