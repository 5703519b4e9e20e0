"""Uploads that mean harm, into a running daemon: each ends with a reason in plain words, and the next good job runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.daemon_process import PATIENCE_S, DaemonProcess, wait_for

from fastfit_watch.domain.job import Status
from fastfit_watch.storage.ledger import Ledger

STRANGE = {
    "newline": b"two\nlines",
    "ansi": b"\x1b[31mred\x1b[0m",
    "bidi": "good\u202egnp.exe".encode(),
    "not utf-8": b"caf\xe9\xff",
    "long": b"n" * 255,
    "markup": b"<img src=x onerror=alert(1)>",
    "quotes": b"\"'`$(reboot)",
    "percent": b"100%7Bjob%7D{job}%s",
}
LOG_LINE = re.compile(r"(<\d>)?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} \w+ ")
MANIFEST = "person: anna.png\nupper: shirt.png\nseed: 7\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.close()


def fill(folder: Path) -> Path:
    """A good job folder, whatever its name."""
    folder.mkdir()
    for name, colour in (("anna.png", "navy"), ("shirt.png", "red")):
        Image.new("RGB", (48, 64), colour).save(folder / name)
    (folder / "outfit.yaml").write_text(MANIFEST)
    return folder


def png(width: int, height: int) -> bytes:
    """A picture of few bytes and many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _zero_tail(folder: Path) -> None:
    data = folder.joinpath("anna.png").read_bytes()
    folder.joinpath("anna.png").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def _socket(folder: Path) -> None:
    before = Path.cwd()
    os.chdir(folder)  # the path of a socket is limited to 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(before)


def _replace(name: str, data: bytes) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return harm


def _link(name: str, target: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return harm


def _many(folder: Path) -> None:
    for number in range(3000):
        (folder / f"{number}.png").touch()


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (98 + i, 98 + i, *[97 + i] * 8) for i in range(8)
)
HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "laughs": (_replace("outfit.yaml", BOMB), "outfit.yaml"),
    "merges": (_replace("outfit.yaml", b"a: &a {x: 1}\nb: {<<: [*a, *a]}\n"), "outfit.yaml"),
    "depth": (_replace("outfit.yaml", b"[" * 100_000), "outfit.yaml"),
    "four-mb": (_replace("outfit.yaml", b"- x\n" * 1_000_000), "outfit.yaml"),
    "twice": (_replace("outfit.yaml", MANIFEST.encode() + b"seed: 8\n"), "seed"),
    "utf-16": (_replace("outfit.yaml", MANIFEST.encode("utf-16")), "outfit.yaml"),
    "binary": (_replace("outfit.yaml", bytes(range(256))), "outfit.yaml"),
    "types": (_replace("outfit.yaml", b"person: [1, {a: b}]\nupper: 010\nseed: no\n"), "outfit.yaml"),
    "pixels": (_replace("anna.png", png(13_000, 13_000)), "anna.png"),
    "html": (_replace("anna.png", b"<html><script>alert(1)</script>"), "anna.png"),
    "zero-tail": (_zero_tail, "anna.png"),
    "passwd": (_link("anna.png", "/etc/passwd"), "anna.png"),
    "loop": (_link("anna.png", "anna.png"), "anna.png"),
    "fifo": (lambda folder: os.mkfifo(folder / "pipe"), "pipe"),
    "socket": (_socket, "socket"),
    "hard-link": (lambda folder: os.link("/etc/hostname", folder / "host.png"), "host.png"),
    "many": (_many, "files"),
    "nested": (lambda folder: (folder / "more").mkdir(), "more"),
}


def test_every_harm_is_named_and_the_next_good_job_runs(daemon: DaemonProcess) -> None:
    daemon.configure(watch={"settle_s": 0.2, "scan_s": 0.2, "quiet_scan_s": 0.5, "stalled_after_s": 2})
    daemon.start()
    for name, (harm, _) in HARM.items():
        folder = fill(daemon.root / name)
        try:
            harm(folder)
        except OSError as error:  # a hard link across filesystems
            assert name == "hard-link", error
            (folder / "one.png").hardlink_to(folder / "anna.png")
        folder.rename(daemon.inputs / name)
    daemon.upload("good", "look")
    wait_for(lambda: daemon.is_final("good"), daemon)
    wait_for(lambda: all(daemon.status(name).startswith(("invalid", "stalled")) for name in HARM), daemon)
    assert daemon.status("good").startswith("done")
    for name, (_, word) in HARM.items():
        expected = ("one.png", "anna.png", word) if name == "hard-link" else (word,)
        assert any(part in daemon.status(name) for part in expected), (name, daemon.status(name))
        assert not list((daemon.outputs / name).glob("*.png"))


def test_what_may_not_be_read_is_named_and_taken_once_it_may(daemon: DaemonProcess) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start a daemon that may do less")
    daemon.start(through=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])  # root's name without root's powers
    closed = {"folder": ".", "picture": "anna.png", "manifest": "outfit.yaml"}
    for name, file in closed.items():
        fill(daemon.root / name).joinpath(file).chmod(0)
        (daemon.root / name).rename(daemon.inputs / name)
    daemon.upload("good", "look")
    wait_for(lambda: daemon.is_final("good"), daemon)
    assert daemon.status("good").startswith("done")
    wait_for(lambda: all("Make it readable" in daemon.status(name) for name in closed), daemon)
    for name, file in closed.items():
        assert not list((daemon.outputs / name).glob("*.png"))
        (daemon.inputs / name / file).chmod(0o755)
    wait_for(lambda: all(daemon.is_final(name) for name in closed), daemon)
    assert all(daemon.status(name).startswith("done") for name in closed)


def test_strange_names_keep_logs_pages_and_json_well_formed(daemon: DaemonProcess) -> None:
    process = daemon.start()
    for name in STRANGE.values():
        fill(Path(os.fsdecode(os.path.join(os.fsencode(daemon.inputs), name))))  # noqa: PTH118 - pathlib joins no bytes
        inner = fill(daemon.inputs / f"inner{len(os.listdir(daemon.inputs))}")  # noqa: PTH208 - counts undecodable names
        with (inner / "outfit.yaml").open("ab") as manifest:
            manifest.write(b"# " + name.replace(b"\n", b" ") + b"\n")
        os.rename(inner / "anna.png", os.path.join(os.fsencode(inner), name[:200]))  # noqa: PTH104, PTH118
    daemon.upload("good", "look")
    wait_for(lambda: daemon.is_final("good"), daemon)

    def settled() -> bool:
        jobs = daemon.read(lambda ledger: ledger.jobs())
        return len(jobs) >= 2 * len(STRANGE) + 1 and all(job.status is not Status.QUEUED for job in jobs)

    wait_for(settled, daemon)
    time.sleep(1.0)  # until the pages have followed
    process.terminate()
    assert process.wait(PATIENCE_S) == 0

    lines = (daemon.root / "stderr").read_text(encoding="utf-8").splitlines()
    assert lines and all(LOG_LINE.match(line) and _is_plain(line) for line in lines), lines
    for path in daemon.outputs.rglob("*"):
        if path.name == "status.txt":
            text = path.read_text(encoding="utf-8")
            assert text.count("\n") == 1 and _is_plain(text.rstrip("\n")), text
        if path.suffix == ".html":
            page = path.read_text(encoding="utf-8")
            assert all(_is_plain(line) for line in page.splitlines())
            assert "<img src=x" not in page
    ledger = Ledger(daemon.inputs / ".spool" / "ledger.db", read_only=True)
    try:
        assert all(_is_plain(job.name) and _is_plain(job.reason) for job in ledger.jobs())
    finally:
        ledger.close()
    command = [
        sys.executable,
        "-m",
        "fastfit_watch",
        "status",
        "--json",
        "--config",
        str(daemon.root / "settings.yaml"),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert json.loads(answer.stdout)


def _is_plain(text: str) -> bool:
    """No control, format (bidi) or surrogate characters."""
    return all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs") for letter in text if letter != "\t")


@pytest.mark.slow
def test_a_racer_swapping_file_and_link_never_gets_a_secret_in(daemon: DaemonProcess) -> None:
    secret = daemon.root / "secret.png"
    Image.new("RGB", (48, 64), "lime").save(secret)
    (daemon.root / "other").symlink_to(secret)
    daemon.start()
    folder = fill(daemon.root / "race")
    honest = (folder / "anna.png").read_bytes()
    (folder / "READY").touch()  # so that it is looked at, and copied, in the middle of the race
    racer = (
        "import ctypes, os, sys, time\n"
        "os.chdir(sys.argv[1])\n"  # wherever the claim takes the folder
        "os.rename(sys.argv[1], sys.argv[3])\n"
        "libc, here, exchange = ctypes.CDLL(None, use_errno=True), -100, 2\n"
        "for swap in range(1, 100_001):\n"
        "    if libc.renameat2(here, b'anna.png', here, sys.argv[2].encode(), exchange):\n"
        "        sys.exit(os.strerror(ctypes.get_errno()))\n"
        "    time.sleep(0.001 if swap % 10 == 0 else 0)\n"
        "print(swap)\n"
    )
    command = [sys.executable, "-c", racer, str(folder), str(daemon.root / "other"), str(daemon.inputs / "race")]
    racing = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    copy = daemon.inputs / ".spool" / "jobs" / "race" / "snapshot" / "anna.png"
    leaked, copied, tried = secret.read_bytes(), set(), False
    while racing.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # a copy that was not taken is removed
            copied.add(copy.read_bytes())
        tried |= copy.parent.exists()
    assert int(racing.communicate()[0]) == 100_000
    wait_for(lambda: daemon.is_final("race"), daemon)
    assert tried and leaked not in copied
    assert copy.read_bytes() == honest
    daemon.upload("good", "look")
    wait_for(lambda: daemon.is_final("good"), daemon)
