from __future__ import annotations

import pytest

from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.pushes import parse_detached, parse_info


def test_the_end_of_an_attachment_is_read_as_it_was_written() -> None:
    assert parse_detached(encoder.detached(7, "gone: ä")[13:]) == (7, "gone: ä")


@pytest.mark.parametrize("payload", [b"", bytes(9), bytes(11), bytes(9) + b"\1"], ids=bytes.hex)
def test_a_malformed_end_of_an_attachment_is_a_framing_error(payload: bytes) -> None:
    with pytest.raises(FramingError):
        parse_detached(payload)


def test_an_info_is_read_as_it_was_written() -> None:
    document: dict[str, object] = {"server": "blipmq", "max_body_bytes": 5, "draining": False}

    assert parse_info(encoder.info(document)[13:]) == document


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 100_000])
def test_a_malformed_info_is_a_framing_error(payload: bytes) -> None:
    with pytest.raises(FramingError):
        parse_info(payload)
