"""SIGHUP of a real process: it reads its file again, and goes on."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.daemon.process import Processes
from tests.peer import KEY


async def test_sighup_loads_the_file_again(processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "blipmq.toml"
    file.write_text("[logging]\nlevel = 'info'\n")
    daemon = await processes.start("--config", file)
    async with daemon.client(KEY) as peer:
        await daemon.address()
        file.write_text("port = 1\nprot = 1\n")
        daemon.signal(signal.SIGHUP)
        assert "prot: unknown key" in (await daemon.logged("reload refused"))["error"]
        file.write_text("[limits]\nmax_subscriptions = 7\n")
        daemon.signal(signal.SIGHUP)
        assert (await daemon.logged("reloaded"))["changed"] == "limits.max_subscriptions"
        assert await peer.subscribe("t")
    assert await daemon.terminate() == 0
