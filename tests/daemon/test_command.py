"""`blipmq` as a process, against a daemon as a process: what it did outlives a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence

import attrs
import trio
import trio.lowlevel

from tests.daemon.process import BIN, Process, Processes
from tests.nursery.asking import ADMIN_KEY
from tests.peer import KEY, PATIENCE_SECONDS


@attrs.frozen
class Command:
    """Commands for one daemon."""

    environment: dict[str, str]

    @classmethod
    async def of(cls, daemon: Process) -> Command:
        ready = await daemon.logged("ready")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BLIPMQ_")}
        return cls(
            inherited
            | {
                "BLIPMQ_CLIENT_URL": f"blipmq://{ready['address']}",
                "BLIPMQ_CLIENT_API": f"http://{ready['metrics']}",
                "BLIPMQ_CLIENT_API_KEY": KEY,
                "BLIPMQ_CLIENT_ADMIN_KEY": ADMIN_KEY,
            }
        )

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        """Exit status and output."""
        with trio.fail_after(PATIENCE_SECONDS):
            done = await trio.run_process(
                [str(BIN / "blipmq"), *arguments],
                stdin=stdin,
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
                env=self.environment,
            )
        return done.returncode, done.stdout.decode()


async def start(processes: Processes, **environment: str) -> tuple[Process, Command]:
    daemon = await processes.start(
        BLIPMQ_ADMIN_ALLOWED_KEYS=ADMIN_KEY,
        BLIPMQ_MAX_RETRIES=1,
        BLIPMQ_RETRY_BACKOFF_MS=1,
        **environment,
    )
    return daemon, await Command.of(daemon)


async def give_up(daemon: Process, messages: Sequence[bytes]) -> None:
    """Have version 1 deliver these once, and nobody settle them: they are dead letters."""
    async with daemon.client() as peer:
        subscription = await peer.subscribe("t")
        await peer.publish("t", *messages)
        await peer.poll(subscription, len(messages))
    while await daemon.metric("blipmq_messages_dead_lettered_total") < len(messages):
        await trio.lowlevel.checkpoint()


async def test_what_was_resent_dropped_and_purged_outlives_a_kill(processes: Processes) -> None:
    daemon, blipmq = await start(processes)
    assert await blipmq("sub", "other", "--name", "n", "--wait", "0.1") == (6, "")
    assert (await blipmq("pub", "other", stdin=b"1\n2\n"))[0] == 0
    await give_up(daemon, [b"a", b"b", b"c"])
    rows: list[dict[str, object]] = []
    while len(rows) < 3:
        status, out = await blipmq("dead", "list", "t", "--json")
        assert status == 0
        rows = [json.loads(line) for line in out.splitlines()]
    first, second = str(rows[0]["number"]), str(rows[1]["number"])
    assert (await blipmq("dead", "retry", "t", first))[0] == 0
    assert (await blipmq("dead", "drop", "t", second, "--yes"))[0] == 0
    assert await blipmq("purge", "other", "--yes") == (0, "dropped 2 messages\n")

    await daemon.kill()

    daemon, blipmq = await start(processes)
    _, out = await blipmq("dead", "list", "t", "--json")
    assert [json.loads(line)["body"] for line in out.splitlines()] == ["c"]
    _, out = await blipmq("subs", "--topic", "other", "--json")
    assert json.loads(out)["backlog"]["messages"] == 0
    async with daemon.client() as peer:
        (delivery,) = await peer.poll(await peer.subscribe("t"))
        assert delivery.payload.endswith(b"a")


async def test_a_daemon_that_is_gone_is_told_by_the_status(processes: Processes) -> None:
    daemon, blipmq = await start(processes)
    await daemon.terminate()
    assert (await blipmq("pub", "t", "x"))[0] == 3
    assert (await blipmq("topics"))[0] == 3


async def test_an_interrupt_while_it_waits_for_input_ends_it_quietly(
    processes: Processes,
) -> None:
    _, blipmq = await start(processes)
    process = await trio.lowlevel.open_process(
        [str(BIN / "blipmq"), "pub", "t"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=blipmq.environment,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    async with process.stdin, process.stderr:
        await process.stdin.send_all(b"first\n")
        while '"published": 1' not in (await blipmq("topics", "--json"))[1]:
            pass
        process.send_signal(signal.SIGINT)
        with trio.fail_after(PATIENCE_SECONDS):
            told = b"".join([data async for data in process.stderr])
            assert await process.wait() == 130
    assert told.strip() == b"blipmq: interrupted"


async def test_the_console_shows_the_tasks_of_a_process(processes: Processes) -> None:
    _, command = await start(processes, BLIPMQ_ENABLE_TRIO_CONSOLE="true")
    status, output = await command("console", "--once", "--json", "--children", "50")
    assert status == 0
    document = json.loads(output)
    names = {row["name"] for row in document["names"]}
    assert "blipmq.nursery.scheduler.run_scheduler" in names
    assert document["tree"]["nurseries"]
    assert document["loop"]["idle_seconds"] > 0
