"""Blocking sockets to a server: connecting, and reading so and so much. Knows no protocol."""

from __future__ import annotations

import socket

from tools.bench.load.server import Address
from tools.bench.load.wire import Refused


def connect(address: Address) -> socket.socket:
    """A blocking connection without Nagle's delay."""
    sock = socket.create_connection(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes. Raises Refused when the server closes before."""
    data = bytearray(size)
    at = 0
    while at < size:
        count = sock.recv_into(memoryview(data)[at:])
        if not count:
            raise Refused("the server closed the connection")
        at += count
    return bytes(data)


def receive_until(sock: socket.socket, end: bytes) -> bytes:
    """Everything up to and including the first `end`, and not a byte more. Raises Refused."""
    data = b""
    while not data.endswith(end):
        data += receive_exactly(sock, 1)
    return data
