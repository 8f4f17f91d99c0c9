"""A pytest of its own, as an application's tests are run by."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

PLUGIN = "blipmq.testing.plugin"


def pytest_of(folder: Path, source: str, *options: str) -> str:
    """What pytest says of these tests, run in this empty folder."""
    (folder / "test_application.py").write_text(source)
    # Registered by its entry point, in an environment that was installed since it has one.
    if PLUGIN not in {point.value for point in entry_points(group="pytest11")}:
        options = ("-p", PLUGIN, *options)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", *options, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return run.stdout + run.stderr
