"""Faults of the disk under a daemon that runs.

Where the kernel lets `strace` attach to the daemon, its system calls fail or take long, and the
daemon is the real one in every respect. Where not, the daemon is one whose files were replaced
(`tampered`); what it does about a fault is the real code all the same.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EIO
from pathlib import Path
from typing import Final

import attrs
import trio

from tools.chaos.daemon import Daemon
from tools.chaos.tampered import Tampering, tampered

_ATTACH_SECONDS: Final = 10.0


@attrs.frozen
class DiskFault:
    """What goes wrong: for `strace` which calls and how, and the same for a tampered daemon."""

    name: str
    calls: str
    injection: str
    tampering: Tampering


_WRITES: Final = "writev,pwritev,pwritev2,pwrite64"
_SYNCS: Final = "fsync,fdatasync"
SLOW_MS: Final = 500

WRITE_FAILS: Final = DiskFault(
    "every write to the log fails with EIO", _WRITES, "error=EIO", Tampering(write_error=EIO)
)
SYNC_FAILS: Final = DiskFault(
    "every fsync fails with EIO", _SYNCS, "error=EIO", Tampering(sync_error=EIO)
)
SYNC_IS_SLOW: Final = DiskFault(
    f"every fsync takes {SLOW_MS} ms",
    _SYNCS,
    f"delay_enter={SLOW_MS}ms",
    Tampering(sync_delay_ms=SLOW_MS),
)


@attrs.define(eq=False)
class FaultyDisk:
    """Starts daemons whose disk can be made to fail; `directory` is for files of its own."""

    directory: Path
    by_strace: bool

    @classmethod
    async def find(cls, directory: Path) -> FaultyDisk:
        """In the best way that works here."""
        return cls(directory, await _can_attach())

    @property
    def how(self) -> str:
        """For people."""
        if self.by_strace:
            return "system calls of the daemon fail, by strace"
        return "strace cannot attach here; the daemon's files are replaced by ones that fail"

    async def launch(self, nursery: trio.Nursery, wal_path: Path, **settings: object) -> Daemon:
        """A daemon with these settings. All is well so far."""
        if self.by_strace:
            return await Daemon.launch(nursery, wal_path, **settings)
        self._file.unlink(missing_ok=True)
        return await Daemon.launch(
            nursery,
            wal_path,
            tampered(self._file),
            **settings,
        )

    @property
    def _file(self) -> Path:
        return self.directory / "tampering"

    @asynccontextmanager
    async def fault(self, daemon: Daemon, fault: DiskFault) -> AsyncIterator[None]:
        """The fault is there inside the context."""
        if not self.by_strace:
            fault.tampering.write(self._file)
            try:
                yield
            finally:
                Tampering().write(self._file)
            return
        async with trio.open_nursery() as nursery:
            await nursery.start(_trace, daemon.process.pid, fault)
            yield
            nursery.cancel_scope.cancel()


def _open_files(pid: int) -> list[str]:
    """The files that the process has open."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [target for target in links if Path(target).is_file()]


async def _trace(
    pid: int, fault: DiskFault, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Attach until cancelled, or until the process ends. Raises OSError when it is not allowed."""
    calls = f"{fault.calls}:{fault.injection}"
    command = ["strace", "-f", "-e", f"trace={fault.calls}", "-e", f"inject={calls}"]
    for path in _open_files(pid):  # not the sockets: answers are written by the same call
        command += ["-P", path]
    process = await trio.lowlevel.open_process([*command, "-p", str(pid)], stderr=-1)
    assert process.stderr is not None
    try:
        async with process.stderr:
            text = b""
            with trio.move_on_after(_ATTACH_SECONDS):
                while b" attached" not in text:
                    data = await process.stderr.receive_some()
                    if not data:
                        break
                    text += data
            if b" attached" not in text:
                raise OSError(f"strace: {text.decode(errors='replace')}")
            task_status.started()
            async for _ in process.stderr:
                pass
        await process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _can_attach() -> bool:
    """Try it on a process that does nothing."""
    if shutil.which("strace") is None:
        return False
    sleeper = await trio.lowlevel.open_process(["sleep", "60"])
    attached = False
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_trace, sleeper.pid, SYNC_FAILS)
            attached = True
            nursery.cancel_scope.cancel()
    except* OSError:
        pass
    finally:
        sleeper.kill()
        with trio.CancelScope(shield=True):
            await sleeper.wait()
    return attached
