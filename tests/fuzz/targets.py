"""What is fuzzed, the corpus of each, and inputs that are made of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from hypothesis import strategies as st

CORPUS: Final = Path(__file__).parent / "corpus"
TARGETS: Final = (
    "decoding",
    "properties",
    "session",
    "recovery",
    "repair",
    "config",
    "tracing",
    "http",
    "websocket",
)
_INPUT_MAX: Final = 400


def check_of(target: str) -> Callable[[bytes], None]:
    """What raises for an input that is not dealt with as it must be."""
    module = import_module(f"tests.fuzz.{target}")
    return cast("Callable[[bytes], None]", module.check)


def _file(target: str) -> Path:
    return CORPUS / f"{target}.txt"


def corpus(target: str) -> list[bytes]:
    """Its inputs, those first that are the shortest."""
    return [base64.b64decode(line) for line in _file(target).read_text().splitlines()]


def keep(target: str, kept: Iterable[bytes]) -> None:
    """Have these as its corpus: one on each line, in base64."""
    lines = (base64.b64encode(data).decode() for data in sorted(set(kept), key=_by_length))
    _file(target).write_text("".join(f"{line}\n" for line in lines))


def _by_length(data: bytes) -> tuple[int, bytes]:
    return len(data), data


@st.composite
def _edited(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> bytes:
    edited = bytearray(draw(data))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(edited)))
        size = draw(st.sampled_from([0, 1, 1, 2, 8, 100]))
        edited[at : at + size] = draw(st.binary(max_size=9))
    return bytes(edited)


def inputs(target: str) -> st.SearchStrategy[bytes]:
    """Any bytes; what the corpus has, changed; and two of those in a row."""
    kept = st.sampled_from(corpus(target))
    edited = _edited(kept)
    joined = st.tuples(edited, edited).map(b"".join)
    return st.binary(max_size=_INPUT_MAX) | edited | joined
