from __future__ import annotations

from blipmq.client.outbox import Outbox


def outbox_over(sent: list[bytes], size: int) -> Outbox:
    """One whose connection takes that many bytes of each frame."""

    def shortcut(frame: bytes) -> int:
        sent.append(frame[:size])
        return min(size, len(frame))

    outbox = Outbox()
    outbox.shortcut = shortcut
    return outbox


def test_a_frame_is_sent_at_once_when_nothing_waits() -> None:
    sent: list[bytes] = []
    outbox = outbox_over(sent, 100)
    assert outbox.send(b"first")
    assert sent == [b"first"]
    assert not outbox.waiting


def test_those_that_follow_before_others_have_run_are_sent_together() -> None:
    sent: list[bytes] = []
    outbox = outbox_over(sent, 100)
    assert outbox.send(b"first")
    assert not outbox.send(b"second")
    assert not outbox.send(b"third")
    assert sent == [b"first"]
    assert outbox.drain() == b"secondthird"
    outbox.spent = False
    assert outbox.send(b"fourth")


def test_no_frame_overtakes_another() -> None:
    sent: list[bytes] = []
    outbox = outbox_over(sent, 100)
    outbox.put(b"first")
    assert not outbox.send(b"second")
    assert not sent
    assert outbox.drain() == b"firstsecond"


def test_what_was_not_taken_of_a_frame_waits() -> None:
    sent: list[bytes] = []
    outbox = outbox_over(sent, 3)
    assert not outbox.send(b"first")
    assert sent == [b"fir"]
    assert outbox.drain() == b"st"


def test_while_somebody_sends_frames_wait() -> None:
    sent: list[bytes] = []
    outbox = outbox_over(sent, 100)
    outbox.shortcut = None
    assert not outbox.send(b"first")
    assert not sent
    assert outbox.drain(b"ahead ") == b"ahead first"
