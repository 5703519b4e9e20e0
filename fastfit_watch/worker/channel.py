"""The worker's two ways out: messages to the daemon on a pipe of their own, and its log on standard error."""

from __future__ import annotations

import os
import sys
import threading

from fastfit_watch.domain.worker_protocol import Message, WorkerExit, write_message


class DaemonChannel:
    """The pipe to the daemon. File descriptor 1 is pointed at standard error, so that no library can write here."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send one message. A daemon that is gone ends this process."""
        with self._lock:
            try:
                self._pipe.write(write_message(message) + "\n")
            except OSError:
                os._exit(WorkerExit.STOPPED)


def log_line(level: str, text: str) -> None:
    """Log a text, each line led by its level, as the daemon reads it."""
    for line in text.splitlines():
        print(f"{level}: {line}", file=sys.stderr, flush=True)
