"""The rule of imports, read from the syntax trees of `blipmq`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "blipmq"

ERRORS = "blipmq.errors"
MAY_IMPORT = {
    "blipmq": {"blipmq.client", ERRORS},
    "blipmq.__main__": {"blipmq.cli"},
    "blipmq.errors": set[str](),
    "blipmq.auth": {ERRORS},
    "blipmq.logs": {ERRORS},
    "blipmq.config": {ERRORS, "blipmq.broker.limits", "blipmq.wal.policy"},
    "blipmq.protocol": {ERRORS},
    "blipmq.wal": {ERRORS, "blipmq.protocol"},
    "blipmq.broker": {ERRORS, "blipmq.protocol", "blipmq.wal.facts"},
    "blipmq.client": {ERRORS, "blipmq.protocol"},
    "blipmq.otel": {"blipmq.client", "blipmq.protocol"},
    "blipmq.nursery": {
        ERRORS,
        "blipmq.auth",
        "blipmq.broker",
        "blipmq.config",
        "blipmq.logs",
        "blipmq.protocol",
        "blipmq.wal",
    },
    "blipmq.testing": {
        "blipmq.broker.stats",
        "blipmq.client",
        "blipmq.config",
        "blipmq.nursery",
    },
    "blipmq.cli": {"blipmq"},
}
"""What each module or package may import of BlipMQ, beside itself."""

DECIDE_WITHOUT_WAITING = {"blipmq.protocol", "blipmq.broker", "blipmq.wal"}
OF_THE_OUTSIDE_WORLD = {
    "trio",
    "trio_websocket",
    "hypercorn",
    "asyncio",
    "selectors",
    "socket",
    "ssl",
    "threading",
    "concurrent",
    "multiprocessing",
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "opentelemetry",
}


def room(module: str) -> str:
    """The name under which `MAY_IMPORT` has the rule for `module`."""
    return ".".join(module.split(".")[:2])


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of all that is imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `source`, as the module of that name, does against the rules."""
    tree = ast.parse(source)
    its_room = room(module)
    allowed = MAY_IMPORT[its_room]
    waits = not any(within(module, package) for package in DECIDE_WITHOUT_WAITING)
    found = []
    for line, name in imported(tree, module, is_package):
        if within(name, "blipmq"):
            own = its_room != "blipmq" and within(name, its_room)
            if not own and not any(within(name, package) for package in allowed):
                found.append(f"{module}:{line} imports {name}")
        elif not waits and name.split(".")[0] in OF_THE_OUTSIDE_WORLD:
            found.append(f"{module}:{line} imports {name}")
    for node in ast.walk(tree):
        asynchronous = isinstance(
            node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await
        )
        if isinstance(node, ast.comprehension):
            asynchronous = bool(node.is_async)
        if asynchronous and not waits:
            found.append(f"{module} is asynchronous: {ast.unparse(node).splitlines()[0]}")
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = list(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found.append((".".join(parts), file))
    return found


@pytest.mark.parametrize(("module", "file"), modules(), ids=lambda value: str(value))
def test_a_module_imports_only_what_its_package_may(module: str, file: Path) -> None:
    assert room(module) in MAY_IMPORT, "a new module of the package needs a rule"
    source = file.read_text(encoding="utf-8")
    assert violations(source, module, file.name == "__init__.py") == []


def test_every_rule_is_for_something_that_exists() -> None:
    assert set(MAY_IMPORT) == {room(module) for module, _ in modules()}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("blipmq.errors", "import blipmq.config"),
        ("blipmq.protocol.frames", "from blipmq.broker import limits"),
        ("blipmq.protocol.frames", "from blipmq import wal"),
        ("blipmq.protocol.frames", "from .. import wal"),
        ("blipmq.protocol.frames", "from ..wal.record import Record"),
        ("blipmq.protocol.frames", "import blipmq"),
        ("blipmq.protocol.frames", "from blipmq import *"),
        ("blipmq.protocol.frames", "def f():\n    import blipmq.cli"),
        ("blipmq.broker.topic", "from blipmq.wal import record"),
        ("blipmq.broker.topic", "from blipmq.wal import *"),
        ("blipmq.broker.topic", "import blipmq.wal.factsheet"),
        ("blipmq.broker.topic", "import trio"),
        ("blipmq.broker.topic", "from trio.lowlevel import checkpoint"),
        ("blipmq.broker.topic", "from time import monotonic"),
        ("blipmq.broker.topic", "import os, random"),
        ("blipmq.broker.topic", "async def f(): pass"),
        ("blipmq.wal.log", "async def f():\n    await g()"),
        ("blipmq.wal.log", "f = [x async for x in y]"),
        ("blipmq.wal", "import threading"),
        ("blipmq.config", "from blipmq.broker import broker"),
        ("blipmq.client.client", "from blipmq.config import Config"),
        ("blipmq.client.client", "import blipmq.nursery"),
        ("blipmq.nursery.root", "from blipmq.client import Client"),
        ("blipmq.nursery.root", "from blipmq.cli import blipmqd"),
        ("blipmq", "from blipmq.nursery import root"),
    ],
)
def test_a_forbidden_line_is_found(module: str, source: str) -> None:
    assert violations(source, module, is_package=module in ("blipmq", "blipmq.wal"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("blipmq.protocol.decoder", "from blipmq.protocol import frames\nimport struct"),
        ("blipmq.protocol.decoder", "from . import frames\nfrom .run import Run"),
        ("blipmq.protocol.decoder", "from blipmq.errors import FramingError"),
        ("blipmq.broker.topic", "from blipmq.wal import facts"),
        ("blipmq.broker.topic", "from blipmq.wal.facts import Settled"),
        ("blipmq.nursery.root", "import trio, time\nasync def f(): await g()"),
        ("blipmq.cli.blipmqd", "from blipmq.nursery import root\nfrom blipmq import config"),
        ("blipmq", "from blipmq.client import Client\nfrom blipmq.errors import BlipMQError"),
    ],
)
def test_an_allowed_line_is_not(module: str, source: str) -> None:
    assert violations(source, module, is_package=module == "blipmq") == []
