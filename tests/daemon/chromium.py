"""A headless Chromium, driven by the DevTools protocol: pages that run what a test tells them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

import blipmq
from tests.peer import PATIENCE_SECONDS

BINARY: Final = shutil.which("chromium") or shutil.which("chromium-browser")
MODULE: Final = Path(blipmq.__path__[0]) / "static" / "blipmq.js"

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_LISTENING: Final = b"DevTools listening on "
_MESSAGE_BYTES_MAX: Final = 1 << 26


@contextmanager
def chromium() -> Iterator[str]:
    """Runs a browser of its own; the URL of its DevTools."""
    assert BINARY is not None
    with (
        tempfile.TemporaryDirectory(prefix="chromium", ignore_cleanup_errors=True) as directory,
        subprocess.Popen(
            [BINARY, *_FLAGS, f"--user-data-dir={directory}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process,
    ):
        impatience = threading.Timer(PATIENCE_SECONDS, process.kill)
        impatience.start()
        try:
            assert process.stderr is not None
            said = b""
            for line in process.stderr:
                said += line
                if line.startswith(_LISTENING):
                    break
            else:
                raise AssertionError(f"Chromium ended:\n{said.decode()}")
            impatience.cancel()
            # What it says from now on is of no interest, but somebody has to take it.
            deaf = threading.Thread(target=process.stderr.read)
            deaf.start()
            yield line.removeprefix(_LISTENING).strip().decode()
            process.kill()
            deaf.join()
        finally:
            impatience.cancel()
            process.kill()


class PageError(Exception):
    """What a page threw."""


@attrs.define(eq=False)
class Site:
    """Serves a blank page, the module, and the programs of a test to browsers."""

    origin: str = ""
    programs: dict[str, str] = attrs.Factory(dict)
    """What is at a path."""

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener, *_) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.origin = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._answer, [listener])

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                data = await stream.receive_some()
                if not data:
                    return
                request += data
            path = request.split()[1].decode()
            if path == "/":
                kind, body = "text/html", b"<!doctype html><title>test</title>"
            elif path == "/blipmq.js":
                kind, body = "text/javascript", await trio.Path(MODULE).read_bytes()
            elif path in self.programs:
                kind, body = "text/javascript", self.programs[path].encode()
            else:
                await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + body)


@attrs.define(eq=False)
class Page:
    """One page of a browser."""

    site: Site
    _devtools: WebSocketConnection
    _session: str = ""
    _last_id: int = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the DevTools protocol."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        with trio.fail_after(PATIENCE_SECONDS):
            await self._devtools.send_message(json.dumps(command))
            while (answer := json.loads(await self._devtools.get_message())).get("id") != (
                self._last_id
            ):
                pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        target = await self.call("Target.createTarget", url=url)
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]

    async def run(self, script: str, **values: object) -> Any:
        """What an async function with this body returns, as JSON.

        It finds `values` as constants, and the module as `blipmq`. Raises PageError.
        """
        constants = "".join(f"const {name} = {json.dumps(values[name])};" for name in values)
        source = (
            f'(async () => {{ {constants} const blipmq = await import("/blipmq.js"); {script} }})()'
        )
        result = await self.call(
            "Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")


@asynccontextmanager
async def open_page(devtools: str) -> AsyncIterator[Page]:
    """A page of a site of its own, in the browser with that DevTools URL."""
    site = Site()
    async with trio.open_nursery() as nursery:
        await nursery.start(site.serve)
        async with open_websocket_url(devtools, max_message_size=_MESSAGE_BYTES_MAX) as connection:
            page = Page(site, connection)
            await page.open(f"{site.origin}/")
            yield page
        nursery.cancel_scope.cancel()
