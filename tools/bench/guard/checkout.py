"""The earlier checkout: which one, and an environment of its own for it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[3]
_TRUNKS = ("origin/HEAD", "origin/main", "origin/master")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
_BENCH_NEEDS = ("hdrhistogram",)


class NoBase(Exception):
    """There is nothing to compare with."""


@attrs.frozen
class Base:
    """A commit, and why it is that one."""

    commit: str
    why: str


def find_base(asked: str | None, root: Path = ROOT) -> Base:
    """What was asked for; else the last tag, the commit where a branch began, or the parent.

    Raises NoBase.
    """
    if asked is not None:
        commit = _git(root, "rev-parse", "--verify", "--quiet", f"{asked}^{{commit}}")
        if commit is None:
            raise NoBase(f"there is no commit {asked!r}")
        return Base(commit, asked)
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        raise NoBase(f"{root} is no checkout of a git repository")
    tag = _git(root, "describe", "--tags", "--abbrev=0")
    if tag is not None:
        return find_base(tag, root)
    for trunk in _TRUNKS:
        commit = _git(root, "merge-base", "HEAD", trunk)
        if commit not in (None, head):
            return Base(commit or "", f"there is no tag; where HEAD left {trunk}")
    parent = _git(root, "rev-parse", "--verify", "--quiet", "HEAD^")
    if parent is None:
        raise NoBase("there is no tag, and HEAD is the only commit")
    return Base(parent, "there is no tag; the parent of HEAD")


@contextmanager
def checked_out(base: Base, root: Path = ROOT) -> Iterator[str]:
    """The interpreter of an environment that has that commit; all of it is removed in the end.

    Raises subprocess.CalledProcessError.
    """
    with tempfile.TemporaryDirectory(prefix="blipmq-guard-") as directory:
        tree = Path(directory) / "tree"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(tree), base.commit],
            cwd=root,
            check=True,
        )
        try:
            venv = Path(directory) / "venv"
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            python = str(venv / "bin" / "python")
            lock = ["--constraint", str(root / "requirements.lock")]
            subprocess.run(
                [python, *_PIP, *lock, "--editable", str(tree), *_BENCH_NEEDS], check=True
            )
            yield python
        finally:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=True
            )


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers; None when it does not know. Raises NoBase where there is no git."""
    try:
        found = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise NoBase("git is not installed") from None
    return found.stdout.strip() if found.returncode == 0 else None
