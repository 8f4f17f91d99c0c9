from __future__ import annotations

import pytest

from blipmq.protocol import encoder


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (encoder.hello(1, 1), "0000000b 01 0000000000000001 0001"),
        (encoder.auth(2, b"key"), "0000000e 02 0000000000000002 0003 6b6579"),
        (encoder.publish(3, 1, b"t", b"xy"), "0000000f 03 0000000000000003 01 0001 74 7879"),
        (encoder.publish(3, 0, "ä".encode(), b""), "0000000e 03 0000000000000003 00 0002 c3a4"),
        (encoder.subscribe(4, b"t", 1), "0000000d 04 0000000000000004 0001 74 01"),
        (encoder.ack(5), "00000011 05 0000000000000005 0000000000000000"),
        (encoder.ack(5, 258), "00000011 05 0000000000000005 0000000000000102"),
        (encoder.nack(6, 404, "no"), "0000000f 06 0000000000000006 0194 0002 6e6f"),
        (encoder.ping(2**64 - 1), "00000009 07 ffffffffffffffff"),
        (encoder.pong(8), "00000009 08 0000000000000008"),
        (encoder.poll(9, 7), "00000011 09 0000000000000009 0000000000000007"),
        (
            encoder.info({"draining": True}),
            "0000001a 10 0000000000000000" + b'{"draining":true}'.hex(),
        ),
        (encoder.deliver_head(7, 258), "0000010b 11 0000000000000007"),
        (encoder.confirm(12), "00000009 12 000000000000000c"),
        (
            encoder.message(3, 1, b"t", b"\3\0\1m", b"xy"),
            "00000015 13 0000000000000003 01 0001 74 0004 0300016d 7879",
        ),
        (
            encoder.attach(4, b"t", 1, b"\x25\0\0"),
            "00000012 14 0000000000000004 0001 74 01 0003 250000",
        ),
        (encoder.detach(5, 7), "00000012 15 0000000000000005 0000000000000007 00"),
        (encoder.detach(5, 7, delete=True), "00000012 15 0000000000000005 0000000000000007 01"),
        (encoder.detached(7, "no"), "00000015 15 0000000000000000 0000000000000007 0002 6e6f"),
        (
            encoder.settle(7, [(0, 1, 2, 0), (1, 3, 3, 500)]),
            "00000033 16 0000000000000007"
            "00 0000000000000001 0000000000000002 00000000"
            "01 0000000000000003 0000000000000003 000001f4",
        ),
        (encoder.frame(0x42, 10, b"any"), "0000000c 42 000000000000000a 616e79"),
    ],
)
def test_a_frame_is_these_bytes(frame: bytes, expected: str) -> None:
    assert frame == bytes.fromhex(expected)


def test_the_length_of_a_nack_text_is_in_bytes() -> None:
    assert encoder.nack(1, 400, "ä")[13:] == bytes.fromhex("0190 0002 c3a4")
