"""The protocol of Redis on a raw socket, RESP version 2.

Source: the protocol's specification in the documentation of Redis.
"""

from __future__ import annotations

import socket

from tools.bench.load.stream import receive_exactly, receive_until
from tools.bench.load.wire import Refused


def bulk(value: bytes) -> bytes:
    """One string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def command(*words: bytes) -> bytes:
    """A request, or an answer of as many strings."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(bulk, words)))


def before_last(size: int, *words: bytes) -> bytes:
    """What stands before the last word of a request, of that size; CR LF stands behind it."""
    return b"*%d\r\n%b$%d\r\n" % (len(words) + 1, b"".join(map(bulk, words)), size)


def ask(sock: socket.socket, *words: bytes) -> bytes:
    """The answer to one request: a line without its first byte, or a string. Raises Refused."""
    sock.sendall(command(*words))
    line = receive_until(sock, b"\r\n")[:-2]
    if line.startswith(b"-"):
        raise Refused(line[1:].decode(errors="replace"))
    if line.startswith(b"$"):
        return receive_exactly(sock, int(line[1:]) + 2)[:-2]
    return line[1:]


def refuse_errors(data: bytes) -> None:
    """Raise Refused when a line of the answers in `data`, which begins with one, is an error."""
    at = 0 if data.startswith(b"-") else data.find(b"\n-") + 1
    if at or data.startswith(b"-"):
        raise Refused(data[at:].decode(errors="replace").strip())
