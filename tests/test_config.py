from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
import tomlkit
import yaml

from blipmq.broker.limits import Limits, Retries
from blipmq.config import (
    AdminSettings,
    Config,
    LoggingSettings,
    WalSettings,
    config_file,
    environment_variable,
    load_config,
    origin,
    settings,
)
from blipmq.errors import ConfigError
from blipmq.wal.policy import FsyncPolicy

EXAMPLE = Path(__file__).parent.parent / "blipmq.example.toml"

NEED_A_CERTIFICATE = ("tls.key", "websocket.tls")

OLDER_FILE = """\
bind_addr = "127.0.0.1"
port = 5555
metrics_addr = "127.0.0.1"
metrics_port = 9100
wal_path = "blipmq.wal"
fsync_policy = "every_n:64"
max_retries = 3
retry_backoff_ms = 100
allowed_api_keys = ["dev-key-1"]
"""


def written(directory: Path, text: str, name: str = "blipmq.toml") -> Path:
    file = directory / name
    file.write_text(text, encoding="utf-8")
    return file


def refusal(file: Path | None, **environ: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(file, environ)
    return str(error.value)


def test_without_file_and_environment_the_defaults_hold() -> None:
    assert load_config(None, {}) == Config()


def test_a_file_of_an_older_broker_loads_from_toml_and_yaml(tmp_path: Path) -> None:
    expected = Config(fsync_policy=FsyncPolicy("every_n", 64), allowed_api_keys=("dev-key-1",))
    as_yaml = OLDER_FILE.replace(" = ", ": ")
    assert load_config(written(tmp_path, OLDER_FILE), {}) == expected
    assert load_config(written(tmp_path, as_yaml, "blipmq.yaml"), {}) == expected
    assert load_config(written(tmp_path, as_yaml, "blipmq.YML"), {}) == expected


def test_tables_set_what_is_in_them_and_leave_the_rest(tmp_path: Path) -> None:
    file = written(tmp_path, '[limits]\nmax_topics = 5\n[logging]\nformat = "json"\n')
    assert load_config(file, {}) == Config(
        limits=Limits(max_topics=5), logging=LoggingSettings(format="json")
    )


@pytest.mark.parametrize("name", ["empty.toml", "empty.yaml"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, name: str) -> None:
    assert load_config(written(tmp_path, "# nothing\n", name), {}) == Config()


def test_the_older_name_of_the_console_is_accepted(tmp_path: Path) -> None:
    file = written(tmp_path, "enable_tokio_console = true\n")
    assert load_config(file, {}).enable_trio_console
    assert load_config(None, {"BLIPMQ_ENABLE_TOKIO_CONSOLE": "1"}).enable_trio_console


def test_both_names_of_the_console_at_once_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "enable_tokio_console = true\nenable_trio_console = true\n")
    assert "expected only one of" in refusal(file)


def test_both_variables_of_the_console_at_once_are_refused() -> None:
    older, name = "BLIPMQ_ENABLE_TOKIO_CONSOLE", "BLIPMQ_ENABLE_TRIO_CONSOLE"
    assert refusal(None, **{older: "1", name: "1"}) == (
        f"environment variable {older}: expected only one of {older} and {name}, found both"
    )


def test_the_retry_settings_are_what_the_broker_takes() -> None:
    config = Config(max_retries=7, retry_backoff_ms=20)
    assert config.retries == Retries(max_retries=7, retry_backoff_ms=20)


def test_a_table_without_settings_means_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "limits:\n  # max_topics: 5\nwal:\n", "blipmq.yaml")
    assert load_config(file, {"BLIPMQ_WAL_SEGMENT_BYTES": "8192"}).limits == Limits()


class TestPrecedence:
    def test_the_given_path_goes_before_the_environment(self, tmp_path: Path) -> None:
        given = written(tmp_path, "port = 1\n", "given.toml")
        named = written(tmp_path, "port = 2\n", "named.toml")
        assert load_config(given, {"BLIPMQ_CONFIG": str(named)}).port == 1
        assert load_config(None, {"BLIPMQ_CONFIG": str(named)}).port == 2

    def test_an_empty_blipmq_config_names_no_file(self) -> None:
        assert config_file(None, {"BLIPMQ_CONFIG": ""}) is None

    def test_a_variable_goes_before_the_file(self, tmp_path: Path) -> None:
        file = written(tmp_path, "port = 1\nmax_retries = 5\n[limits]\nmax_topics = 5\n")
        config = load_config(file, {"BLIPMQ_PORT": "3", "BLIPMQ_LIMITS_MAX_TOPICS": "6"})
        assert (config.port, config.max_retries, config.limits.max_topics) == (3, 5, 6)

    def test_a_variable_sets_one_key_of_a_table_that_the_file_has_not(self) -> None:
        config = load_config(None, {"BLIPMQ_WAL_SEGMENT_BYTES": "8192"})
        assert config.wal == WalSettings(segment_bytes=8192)

    def test_a_variable_makes_up_for_a_bad_value_in_the_file(self, tmp_path: Path) -> None:
        file = written(tmp_path, 'port = "x"\n')
        assert load_config(file, {"BLIPMQ_PORT": "3"}).port == 3


class TestEnvironment:
    def test_every_setting_has_a_variable_of_its_own(self) -> None:
        variables = [environment_variable(key) for key in settings()]
        assert len(set(variables)) == len(variables)
        assert "BLIPMQ_CONFIG" not in variables

    @pytest.mark.parametrize("key", settings())
    def test_every_variable_reaches_its_setting(self, key: str) -> None:
        its_type = settings()[key]
        values = {bool: "true", int: "4242", FsyncPolicy: "interval_ms:5", str: "::1"}
        special = {"allowed_api_keys": "a,b", "logging.level": "debug", "logging.format": "json"}
        special["tracing.exporter"], special["tracing.sample_ratio"] = "console", "0.25"
        special["tracing.endpoint"] = "https://collector.example/v1/traces"
        special["limits.backlog_full"] = "drop_oldest"
        special["websocket.path"] = "/mq"
        special["websocket.allowed_origins"] = "https://a.example, http://b.example:8080"
        special["admin.allowed_keys"] = "a" * 16
        value = special.get(key) or values[its_type]
        if its_type is bool and _setting(Config(), key) is True:
            value = "false"
        needed = {"BLIPMQ_TLS_CERTIFICATE": "a.pem"} if key in NEED_A_CERTIFICATE else {}
        config = load_config(None, {environment_variable(key): value} | needed)
        assert _setting(config, key) != _setting(Config(), key)

    def test_keys_are_separated_by_commas_and_trimmed(self) -> None:
        config = load_config(None, {"BLIPMQ_ALLOWED_API_KEYS": " one ,two,, three,"})
        assert config.allowed_api_keys == ("one", "two", "three")
        assert load_config(None, {"BLIPMQ_ALLOWED_API_KEYS": ""}).allowed_api_keys == ()

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("true", True),
            ("1", True),
            ("Yes", True),
            ("false", False),
            ("0", False),
            ("OFF", False),
        ],
    )
    def test_booleans_are_words_or_digits(self, text: str, value: bool) -> None:
        config = load_config(None, {"BLIPMQ_ENABLE_TRIO_CONSOLE": text})
        assert config.enable_trio_console is value

    def test_an_empty_wal_path_means_no_log(self) -> None:
        assert load_config(None, {"BLIPMQ_WAL_PATH": ""}).wal_path == ""

    @pytest.mark.parametrize(
        ("variable", "value", "expected"),
        [
            ("BLIPMQ_PORT", "tcp://10.0.0.1:5555", "expected an integer from 0 to 65535"),
            ("BLIPMQ_PORT", "65536", "expected an integer from 0 to 65535"),
            ("BLIPMQ_MAX_RETRIES", "", "expected an integer"),
            ("BLIPMQ_BIND_ADDR", "", "expected a string that is not empty"),
            ("BLIPMQ_FSYNC_POLICY", "never", "expected always, every_n:<n>"),
            ("BLIPMQ_ENABLE_TRIO_CONSOLE", "maybe", "expected true or false"),
            ("BLIPMQ_LOGGING_LEVEL", "loud", "expected one of debug, info, warning, error"),
        ],
    )
    def test_a_bad_value_is_refused_by_the_name_of_its_variable(
        self, variable: str, value: str, expected: str
    ) -> None:
        text = refusal(None, **{variable: value})
        assert text.startswith(f"environment variable {variable}: {expected}")
        assert text.endswith((f"found {value!r}", f"found {value}"))

    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("BLIPMQ_LIMITS_MAX_TOPIC", "BLIPMQ_LIMITS_MAX_TOPICS"),
            ("BLIPMQ_MAX_TOPICS", "BLIPMQ_LIMITS_MAX_TOPICS"),
            ("BLIPMQ_LEVEL", "BLIPMQ_LOGGING_LEVEL"),
            ("BLIPMQ_LOG_LEVEL", "BLIPMQ_LOGGING_LEVEL"),
            ("BLIPMQ_API_KEYS", "BLIPMQ_ALLOWED_API_KEYS"),
            ("BLIPMQ_CONFIG_FILE", "BLIPMQ_CONFIG"),
        ],
    )
    def test_an_unknown_variable_is_refused_with_the_nearest_one(
        self, variable: str, meant: str
    ) -> None:
        assert refusal(None, **{variable: "5"}) == (
            f"environment variable {variable}: unknown; did you mean {meant}?"
        )

    def test_an_unknown_variable_that_is_near_to_none_is_refused(self) -> None:
        assert refusal(None, BLIPMQ_URL="sesame") == (
            "environment variable BLIPMQ_URL: unknown; expected the name of a setting after BLIPMQ_"
        )

    @pytest.mark.parametrize(
        "variable", ["BLIPMQ_SERVICE_HOST", "BLIPMQ_SERVICE_PORT", "BLIPMQ_PORT_5555_TCP"]
    )
    def test_variables_of_a_kubernetes_service_are_refused(self, variable: str) -> None:
        assert refusal(None, **{variable: "x"}).startswith(f"environment variable {variable}: unk")

    @pytest.mark.parametrize("variable", ["PORT", "BLIPMQ", "BLIPMQX_PORT", "MY_BLIPMQ_PORT"])
    def test_variables_of_others_are_ignored(self, variable: str) -> None:
        assert load_config(None, {variable: "x"}) == Config()


class TestRefusals:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('port = "5555"', "port: expected an integer from 0 to 65535, found '5555'"),
            ("port = -1", "port: expected an integer from 0 to 65535, found -1"),
            ("port = true", "port: expected an integer from 0 to 65535, found true"),
            ("max_retries = 3.5", "max_retries: expected an integer from 0 to 65535, found 3.5"),
            ("bind_addr = 5", "bind_addr: expected a string, found 5"),
            ('bind_addr = ""', "bind_addr: expected a string that is not empty, found ''"),
            ('wal_path = "a\\u0000b"', "wal_path: expected a string, found 'a\\x00b'"),
            (
                "limits.max_topics = 9223372036854775808",
                "limits.max_topics: expected an integer from 1 to 9223372036854775807, found 92233",
            ),
            (
                f"shutdown.drain_timeout_ms = {10**400}",
                "shutdown.drain_timeout_ms: expected an integer from 0 to 9223372036854775807, "
                "found a number of 1329 bits",
            ),
            (
                'tracing.endpoint = "http://[::1"',
                "tracing.endpoint: expected a URL, such as http://127.0.0.1:4318/v1/traces",
            ),
            (
                'tracing.endpoint = "http://localhost:65536/"',
                "tracing.endpoint: expected a URL, such as http://127.0.0.1:4318/v1/traces",
            ),
            (
                'websocket.allowed_origins = ["https://ex\u00e4mple.com"]',
                "websocket.allowed_origins: expected a list of origins",
            ),
            (
                'admin.allowed_keys = ["0123456789abcdef\\n"]',
                "admin.allowed_keys: expected keys that fit into a header of HTTP, found a control "
                "character, or space at an end, at place 1",
            ),
            ("retry_backoff_ms = 0", "retry_backoff_ms: expected an integer, 1 or more, found 0"),
            ("fsync_policy = 64", "fsync_policy: expected always, every_n:<n>, "),
            ('fsync_policy = "every_n:0"', "fsync_policy: expected always, every_n:<n>, "),
            ("enable_trio_console = 1", "enable_trio_console: expected true or false, found 1"),
            ("enable_tokio_console = 1", "enable_tokio_console: expected true or false, found 1"),
            ("limits = 5", "limits: expected a table [limits], found 5"),
            ("limits.max_topics = 0", "limits.max_topics: expected an integer, 1 or more, found 0"),
            (
                "limits.max_topics = []",
                "limits.max_topics: expected an integer, 1 or more, found a",
            ),
            ('tls.port = "x"', "tls.port: expected an integer from 0 to 65535, found 'x'"),
            ("websocket.enabled = 1", "websocket.enabled: expected true or false, found 1"),
            (
                "websocket.max_message_bytes = 0",
                "websocket.max_message_bytes: expected an integer, 1 or more, found 0",
            ),
            (
                "tracing.sample_ratio = 1.5",
                "tracing.sample_ratio: expected a number from 0 to 1, found 1.5",
            ),
            (
                "tracing.sample_ratio = true",
                "tracing.sample_ratio: expected a number from 0 to 1, found true",
            ),
            (
                "tracing.sample_ratio = nan",
                "tracing.sample_ratio: expected a number from 0 to 1, found nan",
            ),
            (
                'tracing.endpoint = "localhost:4318"',
                "tracing.endpoint: expected a URL, such as http://127.0.0.1:4318/v1/traces",
            ),
            (
                'tracing.exporter = "jaeger"',
                "tracing.exporter: expected one of otlp, console, found 'jaeger'",
            ),
            ('websocket.path = "mq"', "websocket.path: expected a path of a URL, such as /"),
            ('websocket.path = "/a?b"', "websocket.path: expected a path of a URL, such as /"),
            ('websocket.path = "/é"', "websocket.path: expected a path of a URL, such as /"),
            ("websocket.path = 5", "websocket.path: expected a path of a URL, such as /"),
            (
                'websocket.allowed_origins = "*"',
                "websocket.allowed_origins: expected a list of origins such as https://example.com",
            ),
            (
                'websocket.allowed_origins = ["https://example.com/"]',
                "websocket.allowed_origins: expected a list of origins such as "
                'https://example.com, without a path, or "*" for all, found '
                "'https://example.com/'",
            ),
            (
                'websocket.allowed_origins = ["example.com"]',
                "websocket.allowed_origins: expected a list of origins",
            ),
            (
                'tls.key = "key.pem"',
                "tls.key: expected tls.certificate to be set as well, found nothing",
            ),
            (
                "websocket.tls = true",
                "websocket.tls: expected tls.certificate to be set as well, found nothing",
            ),
            (
                'logging.format = "xml"',
                "logging.format: expected one of console, json, found 'xml'",
            ),
        ],
    )
    def test_a_bad_value_names_file_key_expectation_and_finding(
        self, tmp_path: Path, line: str, expected: str
    ) -> None:
        file = written(tmp_path, line + "\n")
        assert refusal(file).startswith(f"{file}: {expected}")

    @pytest.mark.parametrize(
        ("line", "hint"),
        [
            ("bind_adr = 'x'", "bind_adr: unknown key; did you mean bind_addr?"),
            ("[limit]", "limit: unknown key; did you mean limits?"),
            ("max_topics = 5", "max_topics: unknown key; did you mean limits.max_topics?"),
            (
                "limits.max_topic = 5",
                "limits.max_topic: unknown key; did you mean limits.max_topics",
            ),
            ("limits.port = 5", "limits.port: unknown key; did you mean port?"),
            ("zzz = 5", "zzz: unknown key; expected one of bind_addr, port, "),
            ("wal.zzz = 5", "wal.zzz: unknown key; expected one of segment_bytes, "),
        ],
    )
    def test_an_unknown_key_is_refused_with_the_nearest_one(
        self, tmp_path: Path, line: str, hint: str
    ) -> None:
        file = written(tmp_path, line + "\n")
        assert refusal(file).startswith(f"{file}: {hint}")

    def test_all_problems_are_reported_together(self, tmp_path: Path) -> None:
        file = written(tmp_path, 'port = "x"\nbind_adr = "y"\n[wal]\nqueue_batches = 0\n')
        lines = refusal(file, BLIPMQ_MAX_RETRIES="z").splitlines()
        assert len(lines) == 4
        assert all(any(key in line for line in lines) for key in ("port", "bind_adr", "queue_bat"))
        assert any(line.startswith("environment variable BLIPMQ_MAX_RETRIES") for line in lines)

    @pytest.mark.parametrize(
        "line",
        [
            'allowed_api_keys = "sesame"',
            'allowed_api_keys = ["sesame", 5]',
            'allowed_api_keys = ["sesame", ""]',
            'allowed_api_keys = [["sesame"]]',
            'allowed_api_key = ["sesame"]',
            'allowed_api_keys = ["sesame" "x"]',
            "sesame",
            '"sesame"',
        ],
    )
    def test_a_refusal_never_shows_an_api_key(self, tmp_path: Path, line: str) -> None:
        text = refusal(written(tmp_path, line + "\n"))
        assert "sesame" not in text

    def test_a_key_longer_than_the_wire_can_carry_is_refused(self) -> None:
        assert load_config(None, {"BLIPMQ_ALLOWED_API_KEYS": "k" * 65_535}).allowed_api_keys
        assert "1 to 65535 bytes" in refusal(None, BLIPMQ_ALLOWED_API_KEYS="k" * 65_536)

    def test_a_key_that_is_not_utf_8_is_refused(self) -> None:
        assert "at place 2" in refusal(None, BLIPMQ_ALLOWED_API_KEYS="good,\udcff")

    def test_a_text_that_is_not_utf_8_is_refused(self, tmp_path: Path) -> None:
        file = written(tmp_path, 'wal_path: "\\ud800"\n', "a.yaml")
        assert refusal(file) == f"{file}: wal_path: expected a string of UTF-8, found '\\ud800'"
        of_variable = refusal(None, BLIPMQ_BIND_ADDR="\udcff")
        assert of_variable.endswith("expected a string of UTF-8, found '\\udcff'")

    def test_a_syntax_error_in_yaml_does_not_quote_the_line(self, tmp_path: Path) -> None:
        text = refusal(written(tmp_path, 'allowed_api_keys: ["sesame" "x"]\n', "a.yaml"))
        assert "line 1" in text
        assert "sesame" not in text

    @pytest.mark.parametrize("text", ["sesame", "- sesame", "!!set {sesame}", "!!binary sesame=="])
    def test_yaml_without_keys_is_not_quoted(self, tmp_path: Path, text: str) -> None:
        found = refusal(written(tmp_path, text + "\n", "a.yaml"))
        assert "expected keys and values, found a" in found
        assert "sesame" not in found

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "missing.toml"
        assert refusal(file) == (
            f"{file}: cannot read the configuration file: No such file or directory"
        )

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("a.toml", "port = \n", "expected TOML: .* line 1"),
            ("a.toml", "port = 1\nport = 2\n", "expected TOML: "),
            ("a.yaml", "port: [\n", "expected YAML: .* line 2"),
            ("a.yaml", "- port\n", "expected keys and values, found a list"),
            ("a.yaml", "port\n", "expected keys and values, found a single value"),
            ("a.yaml", "5\n", "expected keys and values, found a single value"),
            ("a.yaml", "port: 1\nport: 1\n", "expected YAML: duplicate key port at line 2 col 1"),
            (
                "a.yaml",
                "limits: {max_topics: 1,\n  max_topics: 2}\n",
                "expected YAML: duplicate key max_topics at line 2 col 3",
            ),
            ("a.yaml", "port: " + "[" * 5_000, "expected YAML: nested too deeply"),
            ("a.toml", "port = " + "[" * 5_000, "expected TOML: .*nested"),
            ("a.yaml", "5: 6\n", "5: unknown key"),
            ("a.yaml", "port: 2020-99-99\n", "expected YAML: "),
            ("a.yaml", "port: !!int ''\n", "expected YAML: a value does not fit its tag"),
            ("a.yaml", "port: !!bool 7\n", "expected YAML: a value does not fit its tag"),
            ("a.yaml", "port: !!timestamp 7\n", "expected YAML: a value does not fit its tag"),
            ("a.toml", "port = 1" + "0" * 5_000, "expected TOML: "),
            ("a.yaml", "port: null\n", "port: expected an integer from 0 to 65535, found nothing"),
            ("a.yaml", "!!python/name:os.system x\n", "expected YAML: "),
            ("a.json", "{}", r"expected a name that ends in \.toml, \.yaml or \.yml"),
            ("a", "", r"expected a name that ends in \.toml, \.yaml or \.yml"),
        ],
    )
    def test_a_file_that_cannot_be_parsed_is_named(
        self, tmp_path: Path, name: str, text: str, expected: str
    ) -> None:
        file = written(tmp_path, text, name)
        assert re.match(f"{re.escape(str(file))}: {expected}", refusal(file))

    def test_a_file_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "a.toml"
        file.write_bytes(b"\xff\xfe")
        assert refusal(file) == f"{file}: expected UTF-8 text, found something else"


def test_a_key_that_yaml_merges_into_a_table_may_be_overridden_there(tmp_path: Path) -> None:
    file = written(tmp_path, "limits:\n  <<: {max_topics: 1}\n  max_topics: 2\n", "a.yaml")
    assert load_config(file, {}).limits.max_topics == 2


def test_origins_are_compared_in_lower_case() -> None:
    config = load_config(None, {"BLIPMQ_WEBSOCKET_ALLOWED_ORIGINS": "HTTPS://App.Example, null, *"})
    assert config.websocket.allowed_origins == ("https://app.example", "null", "*")


class TestOrigin:
    def test_it_is_the_file_or_the_defaults(self) -> None:
        file = Path("blipmq.toml")
        assert origin(["bind_addr", "port"], file, {}) == "blipmq.toml"
        assert origin(["port"], None, {"BLIPMQ_CONFIG": "named.toml"}) == "named.toml"
        assert origin(["port"], None, {"BLIPMQ_METRICS_PORT": "1"}) == "defaults"

    def test_variables_go_before_the_file(self) -> None:
        environ = {"BLIPMQ_BIND_ADDR": "::", "BLIPMQ_PORT": "1"}
        assert origin(["port"], Path("a.toml"), environ) == "environment variable BLIPMQ_PORT"
        assert origin(["bind_addr", "port"], None, environ) == (
            "environment variables BLIPMQ_BIND_ADDR, BLIPMQ_PORT"
        )


def test_the_repr_of_a_configuration_shows_no_api_key() -> None:
    assert "sesame" not in repr(Config(allowed_api_keys=("sesame",)))
    assert "sesame" not in repr(Config(admin=AdminSettings(("sesame",))))


def test_an_admin_key_that_could_be_guessed_is_refused() -> None:
    expected = "expected a list of strings of 16 to 65535 bytes, found another value at place 2"
    assert expected in refusal(None, BLIPMQ_ADMIN_ALLOWED_KEYS=f"{'k' * 16},{'k' * 15}")


class TestExampleFile:
    def test_it_loads_and_holds_the_defaults_but_for_its_example_key(self) -> None:
        config = load_config(EXAMPLE, {})
        assert config.allowed_api_keys == ("dev-key-1",)
        assert attrs.evolve(config, allowed_api_keys=()) == Config()

    def test_it_spells_out_every_setting(self) -> None:
        table = ""
        seen = set()
        for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
            if found := re.fullmatch(r"\[(\w+)\]", line):
                table = found[1] + "."
            elif found := re.match(r"(\w+) = ", line):
                seen.add(table + found[1])
        assert seen == set(settings())

    def test_it_means_the_same_as_yaml(self, tmp_path: Path) -> None:
        tables = tomlkit.parse(EXAMPLE.read_text(encoding="utf-8")).unwrap()
        file = written(tmp_path, yaml.safe_dump(tables), "blipmq.yaml")
        assert load_config(file, {}) == load_config(EXAMPLE, {})


def _setting(config: Config, key: str) -> object:
    found: object = config
    for name in key.split("."):
        found = getattr(found, name)
    return found
