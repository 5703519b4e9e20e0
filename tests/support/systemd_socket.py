"""The socket on which systemd would listen to a daemon."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heard:
    """A message and when it came, in monotonic seconds."""

    text: str
    clock_s: float


class Systemd:
    """The socket that systemd would listen on."""

    def __init__(self, address: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "600000"}
        self.heard: list[Heard] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def texts(self) -> list[str]:
        return [message.text for message in self.heard]

    def has(self, start: str) -> bool:
        return any(text.startswith(start) for text in self.texts())

    def times(self, text: str) -> list[float]:
        return [message.clock_s for message in self.heard if message.text == text]

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while text := self._socket.recv(8192):
                self.heard.append(Heard(text.decode(), time.monotonic()))
