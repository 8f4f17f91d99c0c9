from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import pytest

from blipmq.cli import trio_run


class Services(ModuleType):
    """A module of services, as another package would register them."""

    def __init__(self) -> None:
        super().__init__("services_of_another_package")
        self.arguments: list[list[str]] = []
        self.constant = 5

    def echo(self, arguments: list[str]) -> int:
        """Keep the arguments.

        Not shown in the list.
        """
        self.arguments.append(arguments)
        return 7

    def silent(self, arguments: list[str]) -> int:
        return len(arguments)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    services = Services()
    monkeypatch.setitem(sys.modules, services.__name__, services)
    registered = EntryPoints(
        EntryPoint(name, f"{services.__name__}:{attribute}", trio_run.GROUP)
        for name, attribute in [
            ("echo", "echo"),
            ("silent", "silent"),
            ("gone", "no_such_name"),
            ("constant", "constant"),
        ]
    )

    def entry_points(*, group: str) -> EntryPoints:
        return registered.select(group=group)

    monkeypatch.setattr(trio_run, "entry_points", entry_points)
    return services


def test_a_service_gets_its_arguments_and_its_status_is_returned(services: Services) -> None:
    assert trio_run.run(["echo", "--option", "x"]) == 7
    assert services.arguments == [["--option", "x"]]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_name_the_services_are_listed_with_their_descriptions(
    services: Services, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert trio_run.run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  echo             Keep the arguments." in lines
    assert "  silent" in lines
    assert any(line.startswith("  gone             (cannot be loaded: ") for line in lines)
    assert "Not shown in the list." not in "".join(lines)
    assert services.arguments == []


def test_an_unknown_name_is_refused_with_the_nearest(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trio_run.run(["ecko"]) == 2
    assert capsys.readouterr().err == "trio-run: no service 'ecko'; did you mean echo?\n"
    assert trio_run.run(["qqqq"]) == 2
    assert "known: constant, echo, gone, silent" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gone", "constant"])
def test_a_service_that_cannot_be_loaded_is_refused(
    services: Services, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert trio_run.run([name]) == 2
    assert f"trio-run: cannot load service '{name}': " in capsys.readouterr().err


def test_the_daemon_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    assert trio_run.run([]) == 0
    assert "blipmqd          Run the BlipMQ message broker." in capsys.readouterr().out
    assert trio_run.run(["blipmqd", "--version"]) == 0
    assert capsys.readouterr().out.startswith("blipmqd")


def test_the_command_exits_with_the_status(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["trio-run", "silent", "a", "b", "c"])
    with pytest.raises(SystemExit) as end:
        trio_run.main()
    assert end.value.code == 3
