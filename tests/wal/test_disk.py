"""What is the kernel's part: real files in a real directory."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from blipmq.errors import LogError
from blipmq.wal.disk import DirectoryLocked, Disk, File
from blipmq.wal.log import Log
from blipmq.wal.room import NoRoom
from tests.wal.logs import CHECKPOINT, FIRST, all_wanted, append, begin, read, run, salts

NOBODY = 65_534


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "log")


@pytest.fixture
def file(disk: Disk) -> Iterator[File]:
    disk.lock()
    file = disk.create("file")
    yield file
    file.close()
    disk.unlock()


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permissions mean nothing to root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(user)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(disk: Disk, name: str = "file") -> bytes:
    return (disk.directory / name).read_bytes()


def test_buffers_are_written_one_after_the_other(disk: Disk, file: File) -> None:
    file.append([b"one ", bytearray(b"two "), memoryview(b"three")])
    file.append([b" four"])
    assert content(disk) == b"one two three four"
    assert file.size == 18


def test_more_buffers_than_one_call_takes_are_written(disk: Disk, file: File) -> None:
    buffers = [b"%d," % i for i in range(3_000)]
    file.append(buffers)
    assert content(disk) == b"".join(buffers)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7])
def test_what_the_kernel_did_not_take_at_once_is_written_then(
    disk: Disk, file: File, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(fd: int, buffers: list[bytes | memoryview]) -> int:
        return os.write(fd, b"".join(buffers)[:most])

    monkeypatch.setattr("blipmq.wal.disk.os.writev", short)
    file.append([b"", b"one", b"", memoryview(b"two"), b"four", b""])
    assert content(disk) == b"onetwofour"
    assert file.size == 10


def test_appending_nothing_writes_nothing(disk: Disk, file: File) -> None:
    file.append([])
    file.append([b""])
    assert content(disk) == b""


def test_after_a_truncation_the_next_append_follows_what_is_left(disk: Disk, file: File) -> None:
    file.append([b"kept and cut"])
    file.truncate(5)
    file.append([b"more"])
    assert content(disk) == b"kept more"
    assert file.size == 9


def test_an_opened_file_is_appended_to(disk: Disk, file: File) -> None:
    file.append([b"old "])
    again = disk.open("file")
    assert again.size == 4
    again.append([b"new"])
    again.close()
    assert content(disk) == b"old new"


def test_a_file_is_never_created_over_another(disk: Disk, file: File) -> None:
    with pytest.raises(FileExistsError):
        disk.create("file")


def test_a_file_is_read_whole(disk: Disk, file: File) -> None:
    assert disk.read("file") == b""
    file.append([b"x" * 10_000])
    assert bytes(disk.read("file")) == b"x" * 10_000


def test_reading_leaves_no_file_open(disk: Disk, file: File) -> None:
    file.append([b"x"])
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208, nothing to join
    data = disk.read("file")
    del data
    disk.sync_directory()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "a" / "b")
    disk.lock()
    assert disk.directory.is_dir()
    disk.unlock()


def test_a_directory_is_taken_by_one_at_a_time(disk: Disk) -> None:
    disk.lock()
    with pytest.raises(DirectoryLocked) as raised:
        Disk(disk.directory).lock()
    assert raised.value.holder == str(os.getpid())
    disk.unlock()
    other = Disk(disk.directory)
    other.lock()
    other.unlock()


def test_a_directory_that_another_process_holds_names_it(disk: Disk) -> None:
    script = (
        "import sys; from pathlib import Path; from blipmq.wal.disk import Disk;"
        "Disk(Path(sys.argv[1])).lock(); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(disk.directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LogError, match=f"in use by another process, pid {holder.pid}$"):
            Log.open(disk, 1 << 20, salts())
        holder.kill()
        holder.wait()
    Log.open(disk, 1 << 20, salts()).close()


@pytest.mark.usefixtures("unprivileged")
def test_a_directory_without_permission_says_so() -> None:
    with pytest.raises(LogError, match=r"^/etc/blipmq-log: Permission denied$"):
        Log.open(Disk(Path("/etc/blipmq-log")), 1 << 20, salts())


def test_a_file_in_the_place_of_the_directory_says_so(tmp_path: Path) -> None:
    path = tmp_path / "blipmq.wal"
    path.write_bytes(b"BLIPWAL\0")
    with pytest.raises(
        LogError, match=f"{path}: a file, and a log is a directory; .*`blipmq wal import`"
    ):
        Log.open(Disk(path), 1 << 20, salts())


def test_a_log_on_a_real_disk_is_found_again(disk: Disk) -> None:
    log = begin(disk)
    append(log, run(21, 3))
    log.roll(CHECKPOINT, 24, all_wanted)
    append(log, run(24))
    log.close()
    found = read(disk)
    assert found.facts == [attrs.evolve(CHECKPOINT, segments=(1,), salts=(0x5EED_0001,))]
    assert found.numbers == [21, 24]


def test_a_torn_tail_on_a_real_disk_is_cut_off(disk: Disk) -> None:
    log = begin(disk)
    append(log, run(21))
    size = (disk.directory / FIRST).stat().st_size
    append(log, run(22))
    log.close()
    os.truncate(disk.directory / FIRST, size + 20)
    assert read(disk).numbers == [21]
    assert (disk.directory / FIRST).stat().st_size == size


def test_a_file_size_limit_leaves_a_whole_log(disk: Disk) -> None:
    log = begin(disk)
    append(log, run(21))
    size = (disk.directory / FIRST).stat().st_size
    with (
        file_size_limit(size + 100),
        pytest.raises(NoRoom, match=os.strerror(errno.EFBIG)),
    ):
        append(log, run(22, 1, body=b"x" * 1_000))
    assert (disk.directory / FIRST).stat().st_size == size
    append(log, run(23))
    log.close()
    assert read(disk).numbers == [21, 23]
