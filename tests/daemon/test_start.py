"""Starting `blipmqd`: what it reads, what it says, and why it may refuse."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

import blipmq
from blipmq.protocol import encoder
from tests.daemon.process import BIN, BLIPMQD, Processes
from tests.peer import KEY, bodies, nack

TOML = """
port = 0
metrics_port = 0
wal_path = "from-file.wal"
fsync_policy = "every_n:64"
allowed_api_keys = ["key-of-the-file"]
[logging]
format = "json"
"""
YAML = """
port: 0
metrics_port: 0
wal_path: from-file.wal
fsync_policy: every_n:64
allowed_api_keys: [key-of-the-file]
logging:
  format: json
"""


async def test_it_is_ready_on_free_ports_and_serves(processes: Processes) -> None:
    daemon = await processes.start()
    ready = await daemon.logged("ready")
    assert not ready["address"].endswith(":0")
    assert not ready["metrics"].endswith(":0")
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        assert await peer.publish("demo", b"hello") == []
        assert bodies(await peer.poll(subscription)) == [b"hello"]


@pytest.mark.parametrize(
    "command",
    [BLIPMQD, (sys.executable, "-m", "blipmq"), (str(BIN / "trio-run"), "blipmqd")],
    ids=["blipmqd", "python -m blipmq", "trio-run blipmqd"],
)
async def test_every_way_to_start_it_is_the_same(
    processes: Processes, command: tuple[str, ...]
) -> None:
    daemon = await processes.run(command)
    async with daemon.client() as peer:
        assert await peer.ask() == []
    assert await daemon.terminate() == 0
    assert [line["event"] for line in daemon.lines] == ["starting", "ready", "draining", "stopped"]


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.yaml", YAML)])
async def test_it_runs_on_a_configuration_file(
    processes: Processes, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    daemon = await processes.run([*BLIPMQD, "--config", tmp_path / name], {})
    async with daemon.client("key-of-the-file") as peer:
        assert await peer.ask() == []
    assert daemon.lines[0]["configuration"] == str(tmp_path / name)
    assert (tmp_path / "from-file.wal").is_dir()


async def test_the_environment_overrides_the_file_that_it_names(
    processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    daemon = await processes.run(
        BLIPMQD, {"BLIPMQ_CONFIG": "a.toml", "BLIPMQ_ALLOWED_API_KEYS": " first , second "}
    )
    async with daemon.client("first") as first, daemon.client("second") as second:
        assert await first.ask() == await second.ask() == []
    assert (tmp_path / "from-file.wal").is_dir()


async def test_the_client_library_speaks_to_it(processes: Processes) -> None:
    daemon = await processes.start()
    host, port = await daemon.address()
    async with (
        blipmq.open_client(f"blipmq://{host}:{port}", api_key=KEY) as client,
        client.subscribe("demo", qos=1) as messages,
    ):
        await client.publish("demo", b"hello", qos=1)
        message = await messages.receive()
        assert message.body == b"hello"
        await message.accept()
    async with daemon.client() as peer:
        assert await peer.poll(await peer.subscribe("demo")) == []


async def test_without_a_key_it_says_how_to_allow_one_and_lets_nobody_in(
    processes: Processes,
) -> None:
    daemon = await processes.start(BLIPMQ_ALLOWED_API_KEYS="")
    line = await daemon.logged("no API key is allowed, so no client can authenticate")
    assert line["environment_variable"] == "BLIPMQ_ALLOWED_API_KEYS"
    async with daemon.peer() as peer:
        await peer.send(encoder.hello(1, 1), encoder.auth(2, b""), encoder.auth(3, KEY.encode()))
        await peer.send_eof()
        answers = await peer.rest()
        assert [nack(answer) for answer in answers[1:]] == [(401, "invalid API key")] * 2


async def test_a_bad_configuration_ends_the_start_with_2_and_says_what_to_change(
    processes: Processes, tmp_path: Path
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('fsync_polcy = "always"\nmax_retries = "three"\n')
    daemon = await processes.start("--config", file)
    assert await daemon.status() == 2
    assert daemon.text.splitlines() == [
        f"blipmqd: {file}: max_retries: expected an integer from 0 to 65535, found 'three'",
        f"blipmqd: {file}: fsync_polcy: unknown key; did you mean fsync_policy?",
    ]


@pytest.mark.parametrize(
    ("variable", "keys"),
    [
        ("BLIPMQ_PORT", "bind_addr, port"),
        ("BLIPMQ_METRICS_PORT", "metrics_addr, metrics_port"),
        ("BLIPMQ_WEBSOCKET_PORT", "websocket.address, websocket.port"),
    ],
)
async def test_a_port_in_use_ends_the_start_with_2_and_names_it(
    processes: Processes, variable: str, keys: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = await processes.start(BLIPMQ_WEBSOCKET_ENABLED="true", **{variable: port})
        assert await daemon.status() == 2
    last = daemon.text.splitlines()[-1]
    origin = f"environment variable {variable}"
    assert last.startswith(f"blipmqd: {origin}: {keys}: cannot listen on 127.0.0.1:{port} ")
    assert "Traceback" not in daemon.text


async def test_a_certificate_that_cannot_be_read_ends_the_start_with_2_and_names_it(
    processes: Processes,
) -> None:
    daemon = await processes.start(BLIPMQ_TLS_CERTIFICATE="nowhere.pem")
    assert await daemon.status() == 2
    assert daemon.text.splitlines()[-1] == (
        "blipmqd: environment variable BLIPMQ_TLS_CERTIFICATE: "
        "tls.certificate: cannot read nowhere.pem: No such file or directory"
    )


async def test_a_second_daemon_on_the_same_log_ends_with_1_and_names_the_first(
    processes: Processes,
) -> None:
    first = await processes.start()
    await first.logged("ready")
    second = await processes.start()
    assert await second.status() == 1
    assert (
        f"in use by another process, pid {first.pid}" in (await second.logged("stopped"))["error"]
    )
    assert "Traceback" not in second.text
    async with first.client() as peer:
        assert await peer.ask() == []


async def test_a_log_of_a_killed_daemon_is_free_for_the_next(processes: Processes) -> None:
    first = await processes.start()
    await first.logged("ready")
    await first.kill()
    await (await processes.start()).logged("ready")


async def test_a_corrupt_log_ends_the_start_with_1_and_names_file_and_offset(
    processes: Processes, tmp_path: Path
) -> None:
    first = await processes.start()
    async with first.client() as peer:
        for _ in range(3):
            await peer.publish("demo", b"hello")
    assert await first.terminate() == 0
    (segment,) = (tmp_path / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[data.index(b"hello")] ^= 1
    segment.write_bytes(data)
    second = await processes.start()
    assert await second.status() == 1
    error = (await second.logged("stopped"))["error"]
    assert f"{segment.relative_to(tmp_path)}: offset " in error


async def test_keys_never_appear_in_the_logs(processes: Processes) -> None:
    daemon = await processes.start(BLIPMQ_LOGGING_LEVEL="debug")
    async with daemon.client() as peer, daemon.peer() as stranger:
        await peer.publish("demo", b"hello")
        wrong = encoder.auth(2, b"wrong-key")
        await stranger.send(encoder.hello(1, 1), *[wrong] * 20)
        assert len(await stranger.rest()) == 12
        await peer.send(bytes(4))
        await peer.rest()
    status, metrics = await daemon.get("/metrics")
    assert status == 200
    assert await daemon.terminate() == 0
    assert "framing error" in daemon.text
    for text in (daemon.text, metrics):
        assert KEY not in text
        assert "wrong-key" not in text
    daemon = await processes.start(BLIPMQ_PORT="none")
    assert await daemon.status() == 2
    assert KEY not in daemon.text


async def test_an_interrupt_while_it_starts_leaves_no_traceback(processes: Processes) -> None:
    daemon = await processes.start()
    await daemon.logged("starting")
    daemon.signal(signal.SIGINT)
    assert await daemon.status() in (0, 130)
    assert "Traceback" not in daemon.text
