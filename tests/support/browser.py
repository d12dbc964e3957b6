"""A real browser, without a window, where the machine has one: what it makes of a page, and what it complains of."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0  # seconds, for anything


def installed() -> str | None:
    """Return the path of a browser; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page that is open. complaints: messages on the console; requests: addresses that were requested."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._waiting = b""
        while b"\r\n\r\n" not in self._waiting:
            self._waiting += self._socket.recv(4096)
        self._waiting = self._waiting.partition(b"\r\n\r\n")[2]
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def close(self) -> None:
        self._socket.close()

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """Return the answer to a command of the browser's protocol; events are noted meanwhile."""
        self._number += 1
        self._send(json.dumps({"id": self._number, "method": method, "params": given}).encode())
        while True:
            message = json.loads(self._receive())
            if message.get("id") == self._number:
                assert "error" not in message, message
                answer: dict[str, Any] = message["result"]
                return answer
            self._note(message)

    def open(self, file: Path, width: int, height: int = 900) -> None:
        """Open a file in a window of this size, and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=file.as_uri())
        end = time.monotonic() + PATIENCE
        while self.run("document.readyState") != "complete" or self.run("location.href") != file.as_uri():
            assert time.monotonic() < end, "the page was never there"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """Return what a script of the page gives."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _note(self, message: dict[str, Any]) -> None:
        kind, given = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(given["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(given["args"]))
        elif kind == "Log.entryAdded":
            self.complaints.append(given["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])

    def _send(self, content: bytes) -> None:
        size, mask = len(content), os.urandom(4)
        head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, size)
        self._socket.sendall(head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(content)))

    def _receive(self) -> bytes:
        parts = []
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._take(8))
            parts.append(self._take(size))
            if first & 0x80:
                return b"".join(parts)

    def _take(self, number: int) -> bytes:
        while len(self._waiting) < number:
            more = self._socket.recv(65536)
            assert more, "the browser is gone"
            self._waiting += more
        taken, self._waiting = self._waiting[:number], self._waiting[number:]
        return taken


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """Start a browser with a profile of its own in a folder, and yield an empty page of it."""
    browser = installed()
    assert browser is not None
    process = subprocess.Popen(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
         "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    page = None
    try:
        found, end = folder / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not found.is_file() or len(found.read_text().splitlines()) < 2:
            assert process.poll() is None, "the browser did not start"
            assert time.monotonic() < end, "the browser never answered"
            time.sleep(0.1)
        port = int(found.read_text().splitlines()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        address = pages[0]["webSocketDebuggerUrl"]
        page = Page(port, address[address.index("/devtools") :])
        yield page
    finally:
        if page is not None:
            page.close()
        process.terminate()
        process.wait(PATIENCE)
