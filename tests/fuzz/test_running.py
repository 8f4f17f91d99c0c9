"""Real sessions, changed frame by frame, against a running daemon: everybody else is served."""

from __future__ import annotations

from typing import Final

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from blipmq.protocol import encoder
from blipmq.protocol.frames import HEADER, HEADER_BYTES, LENGTH_BYTES, LENGTH_MIN, TYPES_V2
from tests.fuzz.seeds import recorded, version_2_frames
from tests.nursery.daemon import Daemon, serving
from tests.peer import KEY, Peer, bodies

_BYSTANDER: Final = "bystander-key"
_TOPIC: Final = "bystander"
_FRAMES_MAX: Final = 40
Frames = list[bytes]


def frames_of(data: bytes) -> Frames:
    """Cut where the lengths say; what is left is the last one."""
    frames = []
    while data:
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
        frames.append(data[:end])
        data = data[end:]
    return frames


_GREETING: Final = [encoder.hello(1, 2), encoder.auth(2, KEY.encode())]
SESSIONS: Final = [*map(frames_of, recorded()), [*_GREETING, *version_2_frames()]]


def _with_payload(frame: bytes, payload: bytes) -> bytes:
    _, type_, correlation_id = HEADER.unpack_from(frame)
    return HEADER.pack(LENGTH_MIN + len(payload), type_, correlation_id) + payload


@st.composite
def _changed_frame(draw: st.DrawFn, frame: bytes) -> bytes:
    """Another one whose length is right, or, seldom, any bytes."""
    if len(frame) < HEADER_BYTES:
        return frame
    payload = bytearray(frame[HEADER_BYTES:])
    at = draw(st.integers(0, len(payload)))
    how = draw(st.sampled_from(["write", "insert", "cut", "type", "id", "number", "break"]))
    match how:
        case "write" | "insert":
            new = draw(st.binary(min_size=1, max_size=4))
            payload[at : at + len(new) * (how == "write")] = new
        case "cut":
            del payload[at:]
        case "number":
            payload[-8:] = draw(st.integers(0, 12)).to_bytes(8, "big")
        case "type":
            type_ = draw(st.sampled_from(sorted(TYPES_V2)))
            return encoder.frame(type_, HEADER.unpack_from(frame)[2], bytes(payload))
        case "id":
            id_ = draw(st.integers(0, 12) | st.integers(0, 2**64 - 1))
            return encoder.frame(frame[4], id_, bytes(payload))
        case _:
            return draw(st.binary(min_size=1, max_size=20))
    return _with_payload(frame, bytes(payload))


@st.composite
def changed_sessions(draw: st.DrawFn) -> Frames:
    """A session with frames that are changed, left out, repeated, moved, or of another session."""
    frames = list(draw(st.sampled_from(SESSIONS)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(frames)))
        match draw(st.sampled_from(["change", "change", "drop", "repeat", "move", "splice"])):
            case "change" if at < len(frames):
                frames[at] = draw(_changed_frame(frames[at]))
            case "drop":
                del frames[at : at + 1]
            case "repeat":
                frames[at:at] = frames[at : at + 3]
            case "move" if at < len(frames):
                frames.insert(draw(st.integers(0, len(frames))), frames.pop(at))
            case _:
                frames[at:at] = draw(st.sampled_from(SESSIONS))[-5:]
    return frames[:_FRAMES_MAX]


async def _talk(daemon: Daemon, frames: Frames, cut: int | None, reset: bool) -> None:
    """Send it, take what comes for a while, and go."""
    peer = daemon.connect(cut=cut)
    with trio.move_on_after(1):
        try:
            for frame in frames:
                await peer.stream.send_all(frame)
                await trio.sleep(0.01)
            if not reset:
                await peer.send_eof()
            await peer.rest()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the daemon has closed it
    await (peer.reset() if reset else peer.aclose())


async def _is_served(peer: Peer, subscription: int, body: bytes) -> None:
    assert await peer.publish(_TOPIC, body) == []
    deliveries = await peer.poll(subscription)
    assert bodies(deliveries) == [body]
    assert await peer.settle(subscription, *deliveries) == []


async def _meet(sessions: list[Frames], cut: int | None, reset: bool) -> None:
    async with serving(allowed_api_keys=(KEY, _BYSTANDER)) as daemon:
        bystander = daemon.connect()
        await bystander.greet(_BYSTANDER)
        subscription = await bystander.subscribe(_TOPIC)
        async with trio.open_nursery() as nursery:
            for frames in sessions:
                nursery.start_soon(_talk, daemon, frames, cut, reset)
            await _is_served(bystander, subscription, b"during")
        await _is_served(bystander, subscription, b"after")
        daemon.signal()
        await daemon.end()


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(changed_sessions(), min_size=1, max_size=3),
    st.sampled_from([None, None, 1, 7]),
    st.booleans(),
)
def test_nobody_is_troubled_by_what_others_send(
    sessions: list[Frames], cut: int | None, reset: bool
) -> None:
    trio.run(_meet, sessions, cut, reset, clock=MockClock(autojump_threshold=0))
