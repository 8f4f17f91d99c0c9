"""A run against a broker that loses or repeats a message is an error, not a figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 60.0


def said(fault: str) -> str:
    """In a process of its own: the engine forks, which a process with threads must not."""
    command = [sys.executable, "-m", "tests.tools.load.faulty", fault]
    found = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    return found.stdout.strip()


def test_what_comes_once_and_in_order_is_counted() -> None:
    assert said("none") == "counted: 5000"


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("loses", "after 3,000 messages: number 953 of stream 0, expected 952"),
        ("repeats", "after 3,001 messages: number 952 of stream 0, expected 953"),
        ("changes", "after 3,000 messages: number 0 of stream 0, expected 952"),
        ("loses-last", "published: 5,000; subscriber 0 has 4,999 of 5,000"),
        ("repeats-last", "number 903 of stream 0, expected 904"),
    ],
)
def test_a_fault_in_one_message_is_found(fault: str, found: str) -> None:
    assert found in said(fault)
