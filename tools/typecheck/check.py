"""Checks that mypy with trio-typing accepts `program.py` and reports each wrong use in `wrong.py`.

Runs with the interpreter of the environment that holds mypy and trio-typing, and needs nothing
but the standard library itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REPORTED = re.compile(r"(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]")
MARKED = re.compile(r"# wrong: (?P<code>[\w-]+)$")

Finding = tuple[str, int, str]
"""File, line and error code."""


def expected() -> set[Finding]:
    found = set()
    for file in ("program.py", "wrong.py"):
        lines = (HERE / file).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            if mark := MARKED.search(line):
                found.add((file, number, mark["code"]))
    return found


def reported(output: str) -> set[Finding]:
    return {
        (match["file"], int(match["line"]), match["code"])
        for match in map(REPORTED.match, output.splitlines())
        if match
    }


def main() -> int:
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "program.py", "wrong.py"]
    run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if run.returncode != 1:  # 0: nothing is wrong, which cannot be; 2: mypy itself failed
        print(run.stdout, run.stderr, f"mypy ended with status {run.returncode}", sep="\n")
        return 1
    wanted, found = expected(), reported(run.stdout)
    for file, line, code in sorted(wanted - found):
        print(f"{file}:{line}: not reported: [{code}]")
    if wanted != found:
        print("", "what mypy reported:", run.stdout, sep="\n")
        return 1
    print(f"{len(wanted)} wrong uses reported, every right use accepted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
