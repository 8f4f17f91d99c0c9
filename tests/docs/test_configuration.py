"""`docs/configuration.md` has every setting, and every file that the documents show loads."""

from __future__ import annotations

import json
import re
import tomllib
from operator import attrgetter
from pathlib import Path

import pytest

from blipmq.config import Config, environment_variable, load_config, settings
from blipmq.errors import ConfigError
from tests.docs.markdown import Block, Document, documents

CONFIGURATION = Document.read("docs/configuration.md")
ROWS = CONFIGURATION.tables("key", "default", "unit", "environment variable", "meaning")
SAMPLES = [block for document in documents() for block in document.blocks("toml", "yaml")]


def code(cell: str) -> str:
    """What a cell shows as code; the whole of it."""
    assert cell[:1] == cell[-1:] == "`", cell
    return cell[1:-1]


def default(key: str) -> object:
    value = attrgetter(key)(Config())
    if isinstance(value, bool | int | float | str):
        return value
    return list(value) if isinstance(value, tuple) else str(value)


def test_every_setting_has_a_row() -> None:
    assert [code(row[0]) for row in ROWS] == list(settings())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: code(row[0]))
def test_the_row_has_the_default_and_the_variable(row: list[str]) -> None:
    key = code(row[0])
    assert tomllib.loads(f"value = {code(row[1])}")["value"] == default(key)
    assert code(row[3]) == environment_variable(key)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: code(row[0]))
def test_the_row_has_the_unit_that_the_key_says(row: list[str]) -> None:
    for suffix, unit in (("_ms", "ms"), ("_bytes", "bytes")):
        assert (row[2] == unit) == code(row[0]).endswith(suffix)


def test_the_table_of_policies_has_policies_that_load() -> None:
    rows = CONFIGURATION.tables("value", "the log is fsynced", "what a power cut can take")
    found = [json.loads(code(row[0])) for row in rows]
    kinds = [load_config(None, {"BLIPMQ_FSYNC_POLICY": text}).fsync_policy.kind for text in found]
    assert kinds == ["always", "every_n", "interval_ms", "none"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda block: f"{block.language} {block.line}")
def test_every_configuration_file_that_is_shown_loads(sample: Block, tmp_path: Path) -> None:
    file = tmp_path / f"blipmq.{sample.language}"
    file.write_text(sample.text)
    assert load_config(file, {}) != Config()


def test_toml_and_yaml_are_shown_with_the_same_settings(tmp_path: Path) -> None:
    loaded = []
    for language in ("toml", "yaml"):
        (sample,) = CONFIGURATION.blocks(language)
        file = tmp_path / f"blipmq.{language}"
        file.write_text(sample.text)
        loaded.append(load_config(file, {}))
    assert loaded[0] == loaded[1]


def test_the_problems_that_are_shown_are_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shown,) = [block for block in CONFIGURATION.blocks("text") if "unknown key" in block.text]
    monkeypatch.chdir(tmp_path)
    Path("blipmq.toml").write_text("[limits]\nqueue_capacty = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Path("blipmq.toml"), {"BLIPMQ_PORT": "http"})
    said = {f"blipmqd: {line}" for line in str(caught.value).splitlines()}
    assert said == set(shown.text.splitlines())


def test_the_variable_that_kubernetes_sets_is_refused_as_shown() -> None:
    (value,) = re.findall(r"`BLIPMQ_PORT=(tcp:[^`]+)`", CONFIGURATION.prose)
    with pytest.raises(ConfigError, match="BLIPMQ_PORT: expected an integer"):
        load_config(None, {"BLIPMQ_PORT": value})
