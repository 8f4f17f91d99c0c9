"""What a protocol has to tell so that raw sockets can speak it: bytes in, bytes out, no socket I/O.

The engine owns the sockets from the moment at which they are handed over, sends what was encoded
beforehand in large blocks, and reads into a large buffer.
"""

from __future__ import annotations

import socket
from typing import Protocol

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.work import Work


class Refused(Exception):
    """The broker answered with an error, or with what was not asked for."""


class PublishCodec(Protocol):
    """One publisher's side of a connection."""

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        """What stands before and after a body in the frame at this place of the ring.

        Frames are sent in the order of their places, and from place 0 on again, with nothing
        changed but stamps; there are at least twice as many as the window. A message may be more
        than one frame.
        """

    def fence(self, sent: int) -> bytes:
        """What follows a block, the `sent` messages of this publisher; mostly nothing."""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        """How many bytes of what was received are dealt with, and the messages they confirm.

        The rest comes again with what follows it. Raises Refused.
        """


class SubscribeCodec(Protocol):
    """One subscriber's side of a connection."""

    def begin(self) -> bytes:
        """What to send before the first message is to come: a request for it, or nothing."""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        """Count the whole messages that begin at `start`; where the rest begins.

        The rest comes again with what follows it. Raises Refused.
        """

    def answer(self) -> bytes:
        """What to send after a read: acknowledgements of what came, requests for more."""

    def barrier(self) -> bytes:
        """A request that the broker answers when it has dealt with everything before it."""

    @property
    def settled(self) -> bool:
        """The barrier was answered."""


class WireProtocol(Protocol):
    """How a broker is spoken to. It is copied into client processes.

    Each function returns when what it asked for is in force. Raises Refused, and OSError when there
    is no broker.
    """

    @property
    def name(self) -> str: ...

    def prepare(self, address: Address, work: Work) -> None:
        """Make what must be there before clients come: streams, queues, durable subscriptions."""

    def conclude(self, address: Address, work: Work) -> None:
        """Remove what `prepare` and the clients have left, so that a run finds the broker clean."""

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, PublishCodec]:
        """A connection that is ready to publish, blocking and without Nagle's delay."""

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, SubscribeCodec]:
        """A connection that is subscribed, so that it gets whatever is published from now on."""
