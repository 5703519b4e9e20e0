"""sd_notify over real sockets, by path and in the abstract namespace."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from fastfit_watch.system.sd_notify import notify, watchdog_interval_s


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_arrives(tmp_path: Path, abstract: bool) -> None:
    name = f"fastfit-{uuid.uuid4()}"
    address = f"@{name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}" if abstract else address)
        receiver.settimeout(60)
        assert notify("READY=1\nSTATUS=größer", {"NOTIFY_SOCKET": address})
        assert receiver.recv(100).decode() == "READY=1\nSTATUS=größer"


@pytest.mark.parametrize("address", ["", "relative/path", "/nowhere/at/all"])
def test_without_a_listener_nothing_happens(address: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": address})
    assert not notify("READY=1", {})


def test_the_watchdog_asks_only_the_process_it_names() -> None:
    assert watchdog_interval_s({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}) == 120.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "120000000"}) == 120.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "soon"}) is None
    assert watchdog_interval_s({}) is None
