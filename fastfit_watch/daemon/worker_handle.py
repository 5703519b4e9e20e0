"""The role of a worker process, as the dispatcher sees it: what it is asked, and what is asked of it."""

from __future__ import annotations

from typing import Protocol

from fastfit_watch.domain.worker_protocol import Event, LookOrder, Message, Ready


class WorkerHandle(Protocol):
    """One worker. Its messages and its end arrive as events. `clock_s` is monotonic seconds."""

    @property
    def device(self) -> str:
        """The device that it works on, such as `cuda:0`."""

    @property
    def ready(self) -> Ready | None:
        """What it reported when its engine was loaded; None while it takes no looks."""

    @property
    def in_hand(self) -> tuple[int, ...]:
        """The tokens of its orders that are not answered, oldest first."""

    def start(self, clock_s: float) -> None:
        """Start the process if there is none and the pause after the last one is over."""

    def check(self, clock_s: float) -> None:
        """Kill a process that makes no progress."""

    def send(self, order: LookOrder, clock_s: float) -> None:
        """Give it one look to make. Whether it is alive to take it is told by its events."""

    def knows(self, event: Event) -> bool:
        """Is this event about the present process, not about one that was replaced?"""

    def handle_message(self, message: Message, clock_s: float) -> None:
        """Take note of a message from the process."""

    def handle_exit(self, exit_code: int, clock_s: float) -> None:
        """Take note that the process has ended: nothing is in its hand any more."""

    def kill(self) -> None:
        """Kill the process and all that it started. Its end arrives as an event."""

    def request_stop(self) -> None:
        """Ask the process to end, without waiting for it."""

    def stop(self, timeout_s: float = ...) -> None:
        """Ask the process to end and wait for it; after `timeout_s` it is killed."""
