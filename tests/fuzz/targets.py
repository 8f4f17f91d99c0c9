"""What is fuzzed, the corpus of each, and inputs that are made of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from hypothesis import strategies as st

CORPUS: Final = Path(__file__).parent / "corpus"
TARGETS: Final = ("decoding", "properties", "session", "recovery", "repair", "config")
_INPUT_MAX: Final = 400


def check_of(target: str) -> Callable[[bytes], None]:
    """What raises for an input that is not dealt with as it must be."""
    module = import_module(f"tests.fuzz.{target}")
    return cast("Callable[[bytes], None]", module.check)


def corpus(target: str) -> list[Path]:
    """Its inputs, those first that are the shortest."""
    return sorted((CORPUS / target).iterdir(), key=lambda path: (path.stat().st_size, path.name))


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
    kept = st.sampled_from([path.read_bytes() for path in corpus(target)])
    edited = _edited(kept)
    joined = st.tuples(edited, edited).map(b"".join)
    return st.binary(max_size=_INPUT_MAX) | edited | joined
