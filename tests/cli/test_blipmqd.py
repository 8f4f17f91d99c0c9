from __future__ import annotations

import json
import logging
import os
import resource
import runpy
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import structlog
import trio

from blipmq.cli import blipmqd
from blipmq.config import Config
from blipmq.errors import ConfigError, CorruptLog, LogError
from blipmq.nursery.outside import Outside


class Daemon:
    """Stands for the daemon: keeps the configuration it was served and ends as it is told."""

    def __init__(self) -> None:
        self.served: list[Config] = []
        self.outside = Outside()
        self.ends_with: BaseException | None = None

    async def serve(self, config: Config, *, outside: Outside) -> None:
        self.served.append(config)
        self.outside = outside
        await trio.lowlevel.checkpoint()
        if self.ends_with is not None:
            raise self.ends_with


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    daemon = Daemon()
    monkeypatch.setattr("blipmq.nursery.root.serve", daemon.serve)
    return daemon


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in os.environ:
        if variable.startswith("BLIPMQ_"):
            monkeypatch.delenv(variable)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "blipmq.toml"
    file.write_text('port = 7\nallowed_api_keys = ["sesame"]\n[logging]\nformat = "json"\n')
    return file


def test_it_serves_the_configuration_of_the_file(daemon: Daemon, file: Path) -> None:
    assert blipmqd.run(["--config", str(file)]) == 0
    assert [config.port for config in daemon.served] == [7]


def test_without_a_file_it_runs_on_the_defaults_and_says_so(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert blipmqd.run([]) == 0
    assert daemon.served == [Config()]
    assert "the defaults, no configuration file given" in capsys.readouterr().err


def test_the_file_that_the_environment_names_is_used(
    daemon: Daemon, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BLIPMQ_CONFIG", str(file))
    assert blipmqd.run([]) == 0
    assert [config.port for config in daemon.served] == [7]
    assert str(file) in capsys.readouterr().err


def test_without_a_key_it_starts_and_says_how_to_allow_one(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert blipmqd.run([]) == 0
    text = capsys.readouterr().err
    assert "no API key is allowed" in text
    assert "allowed_api_keys" in text
    assert "BLIPMQ_ALLOWED_API_KEYS" in text


def test_with_a_key_it_neither_warns_nor_shows_it(
    daemon: Daemon, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert blipmqd.run(["--config", str(file)]) == 0
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in shown.err.splitlines()]
    assert [line["event"] for line in lines] == ["starting"]
    assert "sesame" not in shown.err + shown.out


def test_a_bad_configuration_ends_the_start_with_2_and_plain_lines(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('port = "x"\nbind_adr = "y"\n')
    assert blipmqd.run(["--config", str(file)]) == 2
    assert daemon.served == []
    assert capsys.readouterr().err.splitlines() == [
        f"blipmqd: {file}: port: expected an integer from 0 to 65535, found 'x'",
        f"blipmqd: {file}: bind_adr: unknown key; did you mean bind_addr?",
    ]


def test_what_is_loaded_again_is_the_same_file(daemon: Daemon, file: Path) -> None:
    assert blipmqd.run(["--config", str(file)]) == 0
    file.write_text("port = 8\n")
    assert daemon.outside.load().port == 8


def test_check_config_says_what_it_checked_and_serves_nothing(
    daemon: Daemon, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert blipmqd.run(["--config", str(file), "--check-config"]) == 0
    assert capsys.readouterr().out == f"blipmqd: configuration is valid: {file}\n"
    file.write_text("port = 70000\n")
    assert blipmqd.run(["--config", str(file), "--check-config"]) == 2
    assert "port: expected an integer from 0 to 65535" in capsys.readouterr().err
    assert daemon.served == []


@pytest.mark.parametrize(
    "grouped",
    [lambda error: error, lambda error: ExceptionGroup("a", [ExceptionGroup("b", [error])])],
    ids=["bare", "grouped"],
)
class TestEnds:
    def test_an_address_that_cannot_be_used_is_a_configuration_error(
        self,
        daemon: Daemon,
        capsys: pytest.CaptureFixture[str],
        grouped: Callable[[Exception], Exception],
    ) -> None:
        daemon.ends_with = grouped(ConfigError("port: expected a free port, found 5555 in use"))
        assert blipmqd.run([]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "blipmqd: defaults: port: expected a free port, found 5555 in use"

    @pytest.mark.parametrize("error", [LogError("disk\ngone"), CorruptLog("0.wal at 64")])
    def test_a_log_that_cannot_be_used_is_one_line_without_traceback(
        self,
        daemon: Daemon,
        file: Path,
        capsys: pytest.CaptureFixture[str],
        grouped: Callable[[Exception], Exception],
        error: LogError,
    ) -> None:
        daemon.ends_with = grouped(error)
        assert blipmqd.run(["--config", str(file)]) == 1
        text = capsys.readouterr().err
        assert "Traceback" not in text
        last = json.loads(text.splitlines()[-1])
        assert last["level"] == "error"
        assert last["error"] == " ".join(str(error).split())

    def test_a_bug_is_shown_with_its_traceback(
        self,
        daemon: Daemon,
        file: Path,
        capsys: pytest.CaptureFixture[str],
        grouped: Callable[[Exception], Exception],
    ) -> None:
        daemon.ends_with = grouped(RuntimeError("impossible"))
        assert blipmqd.run(["--config", str(file)]) == 1
        text = capsys.readouterr().err
        last = json.loads(text.splitlines()[-1])
        assert last["event"] == "stopped by a bug"
        assert "RuntimeError: impossible" in last["exception"]
        assert "sesame" not in text


def test_an_address_that_cannot_be_used_is_named_by_file_or_variable(
    daemon: Daemon, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "bind_addr, port: cannot listen"
    daemon.ends_with = ConfigError(text)
    assert blipmqd.run(["--config", str(file)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"blipmqd: {file}: {text}"
    monkeypatch.setenv("BLIPMQ_PORT", "7")
    assert blipmqd.run(["--config", str(file)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"blipmqd: environment variable BLIPMQ_PORT: {text}"


def test_an_error_that_names_no_key_is_shown_as_it_is(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.ends_with = ConfigError("no such thing: at all")
    assert blipmqd.run([]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "blipmqd: no such thing: at all"


def test_a_bug_is_shown_even_if_an_error_came_along(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.ends_with = ExceptionGroup("", [LogError("disk"), RuntimeError("impossible")])
    assert blipmqd.run([]) == 1
    text = capsys.readouterr().err
    assert "LogError: disk" in text
    assert "RuntimeError: impossible" in text


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])],
    ids=["bare", "grouped"],
)
def test_an_interrupt_before_the_daemon_listens_for_signals_ends_quietly(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    daemon.ends_with = error
    assert blipmqd.run([]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert blipmqd.run(["--confg", "x"]) == 2
    assert "--config" in capsys.readouterr().err
    assert daemon.served == []


def test_version_and_help_are_shown(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert blipmqd.run(["--version"]) == 0
    assert version("blipmq") in capsys.readouterr().out
    assert blipmqd.run(["--help"]) == 0
    assert "--check-config" in capsys.readouterr().out
    assert daemon.served == []


def test_the_command_exits_with_the_status(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["blipmqd", "--config", str(file)])
    daemon.ends_with = LogError("disk")
    with pytest.raises(SystemExit) as end:
        blipmqd.main()
    assert end.value.code == 1


def test_the_module_is_the_same_command(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["blipmq", "--check-config"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(Path(blipmqd.__file__).parents[1] / "__main__.py"), run_name="__main__")
    assert end.value.code == 0
    assert "configuration is valid" in capsys.readouterr().out


@pytest.mark.parametrize(("hard", "warns"), [(100, True), (100_000, False)])
def test_as_many_open_files_are_allowed_as_may_be_and_few_are_warned_of(
    hard: int, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {resource.RLIMIT_NOFILE: (50, hard)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    with structlog.testing.capture_logs() as lines:
        blipmqd._allow_descriptors(10_000)

    assert limits == {resource.RLIMIT_NOFILE: (hard, hard)}
    assert [line["allowed"] for line in lines] == ([hard] if warns else [])
