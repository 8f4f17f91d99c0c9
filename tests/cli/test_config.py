"""`blipmq config`, `keys` and `completion`; and where commands have addresses and keys from."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import attrs
import pytest

from blipmq.auth import key_id
from blipmq.cli import blipmq
from blipmq.cli.target import Target
from blipmq.config import Config, load_config, settings
from blipmq.errors import ConfigError


@attrs.define
class Command:
    """`blipmq`, and what it wrote when it was run last."""

    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str | Path) -> int:
        """Its exit status."""
        status = blipmq.run([*map(str, arguments)])
        self.out, self.err = self.capsys.readouterr()
        return status


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in [name for name in os.environ if name.startswith("BLIPMQ_")]:
        monkeypatch.delenv(name)
    return Command(capsys)


# config init and set


def test_a_new_file_has_the_defaults_and_a_key_of_its_own(command: Command, tmp_path: Path) -> None:
    file, other = tmp_path / "a.toml", tmp_path / "b.toml"
    assert command("config", "init", file) == 0
    assert command("config", "init", other) == 0
    config = load_config(file, {})
    assert attrs.evolve(config, allowed_api_keys=()) == Config()
    (key,) = config.allowed_api_keys
    assert (key,) != load_config(other, {}).allowed_api_keys
    assert len(key) > 40
    assert key not in command.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_new_file_has_a_comment_for_people(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    command("config", "init", file, "--set", "limits.max_topics=7")
    text = file.read_text()
    assert "# Where clients connect." in text
    assert "dev-key-1" not in text
    assert "blipmq.example.toml" not in text
    assert load_config(file, {}).limits.max_topics == 7
    assert all(f"\n{key.rpartition('.')[2]} = " in text for key in settings())


def test_a_file_that_is_there_is_not_written_over(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("port = 1\n")
    assert command("config", "init", file) == 2
    assert "is there already" in command.err
    assert file.read_text() == "port = 1\n"
    assert command("config", "init", file, "--force") == 0
    assert load_config(file, {}).port == 5555


BEFORE = """\
# our daemon
port = 6000  # not the default

[limits] # small
max_topics = 10 # enough
"""


def test_a_changed_setting_keeps_the_comments(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(BEFORE)
    file.chmod(0o640)
    assert command("config", "set", file, "port", "6001") == 0
    assert command("config", "set", file, "limits.max_topics", "20") == 0
    assert command("config", "set", file, "allowed_api_keys", "a,b") == 0
    assert command("config", "set", file, "logging.level", "debug") == 0
    text = file.read_text()
    assert "# our daemon\nport = 6001  # not the default\n" in text
    assert "[limits] # small\nmax_topics = 20 # enough\n" in text
    config = load_config(file, {})
    assert (config.allowed_api_keys, config.logging.level) == (("a", "b"), "debug")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prt", "1", "prt: unknown key; did you mean port?"),
        ("max_topics", "1", "max_topics: unknown key; did you mean limits.max_topics?"),
        ("x", "1", "x: unknown key; `blipmq config show` lists all"),
        ("port", "many", "port: expected an integer from 0 to 65535, found 'many'"),
        ("wal.segment_bytes", "1", "wal.segment_bytes: expected an integer, 4096 or more"),
        ("admin.allowed_keys", "short", "admin.allowed_keys: expected a list of strings of 16"),
    ],
)
def test_what_the_daemon_would_refuse_is_not_written(
    command: Command, tmp_path: Path, key: str, value: str, message: str
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(BEFORE)
    assert command("config", "set", file, key, value) == 2
    assert f"blipmq: {file}: {message}" in command.err
    assert file.read_text() == BEFORE
    assert command("config", "init", tmp_path / "b.toml", "--set", f"{key}={value}") == 2
    assert not (tmp_path / "b.toml").exists()


def test_what_is_no_file_to_change_is_told(command: Command, tmp_path: Path) -> None:
    assert command("config", "set", tmp_path / "none.toml", "port", "1") == 2
    assert "`blipmq config init` makes one" in command.err
    assert command("config", "set", tmp_path / "a.yaml", "port", "1") == 2
    assert "expected a name that ends in .toml" in command.err
    (tmp_path / "bad.toml").write_text("port = = 1")
    assert command("config", "set", tmp_path / "bad.toml", "port", "1") == 2
    assert "expected TOML" in command.err
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    assert command("config", "set", tmp_path / "latin.toml", "port", "1") == 2
    assert "expected UTF-8" in command.err
    (tmp_path / "table.toml").write_text("limits = 5\n")
    assert command("config", "set", tmp_path / "table.toml", "limits.max_topics", "1") == 2
    assert "expected a table [limits]" in command.err
    assert command("config", "init", tmp_path / "no" / "a.toml") == 2
    assert "cannot write it: No such file or directory" in command.err
    assert command("config", "init", tmp_path / "a.toml", "--set", "port") == 2
    assert "expected KEY=VALUE" in command.err


# config check and show


def test_a_configuration_is_checked_with_the_environment(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.toml"
    file.write_text("port = 1\n")
    assert command("config", "check", file) == 0
    assert command.out == f"valid: {file}\n"
    monkeypatch.setenv("BLIPMQ_PORT", "x")
    assert command("config", "check", file) == 2
    assert "environment variable BLIPMQ_PORT: expected an integer" in command.err
    monkeypatch.delenv("BLIPMQ_PORT")
    assert command("config", "check") == 0
    assert "the defaults" in command.out
    assert command("config", "check", tmp_path / "none.toml") == 2


def test_every_setting_is_shown_with_its_origin_and_no_key(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.toml"
    file.write_text('port = 1\nallowed_api_keys = ["sesame"]\n')
    monkeypatch.setenv("BLIPMQ_MAX_RETRIES", "9")
    assert command("config", "show", file, "--json") == 0
    shown = json.loads(command.out)
    assert list(shown) == list(settings())
    assert shown["port"] == {"value": 1, "from": str(file)}
    assert shown["max_retries"] == {"value": 9, "from": "environment variable BLIPMQ_MAX_RETRIES"}
    assert shown["wal_path"] == {"value": "blipmq.wal", "from": "default"}
    assert shown["allowed_api_keys"]["value"] == "1 keys"
    assert command("config", "show", file) == 0
    assert "limits.max_topics" in command.out
    assert "sesame" not in command.out


# keys


def test_keys_are_new_each_time(command: Command) -> None:
    assert command("keys", "new", "--count", "3", "--json") == 0
    made = [json.loads(line) for line in command.out.splitlines()]
    assert len({row["key"] for row in made}) == 3
    assert all(row["id"] == key_id(row["key"].encode()) for row in made)
    assert command("keys", "new") == 0
    assert key_id(command.out.strip().encode()) in command.err


def test_no_keys_cannot_be_made(command: Command) -> None:
    assert command("keys", "new", "--count", "0") == 2


# completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(command: Command, shell: str) -> None:
    assert command("completion", shell) == 0
    assert "_BLIPMQ_COMPLETE" in command.out
    assert command("completion", "tcsh") == 2
    assert "'tcsh' is not one of" in command.err


def test_what_bash_asks_is_answered(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_BLIPMQ_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "blipmq dead re")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        command()
    assert command.capsys.readouterr().out.split() == ["plain,retry"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_bash_is_one(command: Command) -> None:
    command("completion", "bash")
    subprocess.run(["bash", "-n"], input=command.out, check=True, text=True)  # noqa: S607


# Where addresses and keys come from


def target(tmp_path: Path, text: str = "", **environment: str) -> Target:
    file = tmp_path / "blipmq.toml"
    file.write_text(text)
    return Target(file, environ=environment)


def test_the_daemons_configuration_says_where_it_is(tmp_path: Path) -> None:
    found = target(
        tmp_path,
        'bind_addr = "0.0.0.0"\nport = 1\nmetrics_addr = "::"\nmetrics_port = 2\n'
        'allowed_api_keys = ["a", "b"]\n[admin]\nallowed_keys = ["0123456789abcdef"]\n',
    )
    assert (found.url, found.api_url) == ("blipmq://127.0.0.1:1", "http://[::1]:2")
    assert (found.api_key, found.admin_key) == ("a", "0123456789abcdef")


def test_variables_go_before_the_configuration(tmp_path: Path) -> None:
    found = target(
        tmp_path,
        "port = 1\n",
        BLIPMQ_CLIENT_URL="blipmq://h",
        BLIPMQ_CLIENT_API="http://h:9/",
        BLIPMQ_CLIENT_API_KEY="k",
        BLIPMQ_CLIENT_ADMIN_KEY="a",
    )
    assert (found.url, found.api_url) == ("blipmq://h", "http://h:9")
    assert (found.api_key, found.admin_key) == ("k", "a")


def test_options_go_before_variables(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from the file\nand a second line\n")
    found = Target(
        None,
        url_option="blipmq://o",
        api_url_option="http://o:1",
        api_key_file=tmp_path / "key",
        admin_key_file=tmp_path / "key",
        environ={"BLIPMQ_CLIENT_URL": "x", "BLIPMQ_CLIENT_API": "y", "BLIPMQ_CLIENT_API_KEY": "z"},
    )
    assert (found.url, found.api_url) == ("blipmq://o", "http://o:1")
    assert found.api_key == found.admin_key == "from the file"


def test_the_admin_key_of_this_machine_is_not_sent_elsewhere(tmp_path: Path) -> None:
    text = '[admin]\nallowed_keys = ["0123456789abcdef"]\n'
    assert target(tmp_path, text, BLIPMQ_CLIENT_API="http://elsewhere:1").admin_key is None


def test_what_cannot_be_found_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no API key; set BLIPMQ_CLIENT_API_KEY"):
        _ = target(tmp_path).api_key
    with pytest.raises(ConfigError, match="port is 0, any free one; say which"):
        _ = target(tmp_path, "port = 0\n").url
    with pytest.raises(ConfigError, match="port is 0, any free one; say which"):
        _ = target(tmp_path, "metrics_port = 0\n").api_url
    with pytest.raises(ConfigError, match="printable ASCII"):
        _ = target(tmp_path, BLIPMQ_CLIENT_ADMIN_KEY="a\nb").admin_key
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="the first line has no key"):
        _ = Target(None, api_key_file=tmp_path / "empty", environ={}).api_key
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="a key is UTF-8"):
        _ = Target(None, api_key_file=tmp_path / "latin", environ={}).api_key


def test_the_daemon_minds_no_variable_of_the_command() -> None:
    assert load_config(None, {"BLIPMQ_CLIENT_URL": "blipmq://h"}) == Config()
