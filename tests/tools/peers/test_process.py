"""Servers of peers are found by name, waited for, and told of when they do not come up."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tools.bench.daemon import DidNotStart
from tools.bench.peers.peer import Launch, PeerServer
from tools.bench.peers.process import Missing, find_program, free_port, running

LISTEN = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()
"""


def test_a_program_that_is_not_installed_is_missing_by_its_name() -> None:
    with pytest.raises(Missing, match="no-such-broker"):
        find_program("no-such-broker")


def test_the_first_program_that_is_there_is_taken() -> None:
    assert find_program("no-such-broker", sys.executable) == sys.executable


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such setting')"]
    with (
        pytest.raises(DidNotStart, match="no such setting"),
        running(command, tmp_path, free_port()),
    ):
        pass


def test_a_server_is_up_when_it_listens_and_gone_in_the_end() -> None:
    def launch(directory: Path, port: int) -> list[Launch]:
        directories.append(directory)
        return [Launch([sys.executable, "-c", LISTEN, str(port)], port)]

    directories: list[Path] = []
    with PeerServer("listener", {}, launch).start() as peer:
        socket.create_connection(peer.address).close()
        assert len(peer.pids) == 1
        assert directories[0].exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(peer.address)
    assert not directories[0].exists()
