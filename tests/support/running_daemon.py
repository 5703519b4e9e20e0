"""A real daemon with the mini bundle in a folder of its own, for tests that upload to it and end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from fastfit_watch.domain.look import Category
from fastfit_watch.mini.drawing.figures import draw_garment, draw_person

PATIENCE_S = 240.0


class RunningDaemon:
    """Starts, kills and watches `fastfit-watch run` in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.inputs, self.outputs = home / "inputs", home / "outputs"
        self.inputs.mkdir(parents=True, exist_ok=True)
        config = {"bundle": "mini", "watch": {"settle_s": 1, "scan_s": 0.3}, "limits": {"min_free_bytes": 0}}
        (home / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon; its words go to `daemon.log`."""
        command = [sys.executable, "-m", "fastfit_watch", "run", "--config", "config.yaml"]
        with (self.home / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.home, stdin=subprocess.DEVNULL, stderr=log)

    def kill(self) -> None:
        """End the daemon with SIGKILL, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_engine(self) -> bool:
        """End the engine process with SIGKILL; False if there is none just now."""
        assert self.process is not None
        children = (
            Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii").split()
        )
        for pid in children:
            if b"fastfit_watch.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
                return True
        return False

    def stop(self) -> int:
        """End the daemon with SIGTERM; returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def status(self, job: str) -> str:
        """The job's status line, empty before there is one."""
        path = self.outputs / job / "status.txt"
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""

    def report(self, job: str) -> dict[str, Any]:
        """The job's report."""
        return dict(json.loads((self.outputs / job / "report.json").read_text(encoding="utf-8")))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; fails with the daemon's last words."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline_s:
                words = (self.home / "daemon.log").read_text(encoding="utf-8", errors="replace")[-3000:]
                raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}\n{words}")
            time.sleep(0.1)

    def wait_done(self, job: str) -> None:
        """Wait until a job is reported as complete."""
        self.wait(lambda: (self.outputs / job / "report.json").is_file(), f"{job}: {self.status(job)}")


def draw_upload(folder: Path, people: int = 1, looks: int = 1, steps: int = 2) -> Path:
    """Draw a job folder: everyone in every look."""
    folder.mkdir(parents=True)
    for number in range(people):
        Image.fromarray(draw_person(40 + number, (512, 384))).save(folder / f"p{number}.jpg", quality=92)
    lines = ["people: ['p*.jpg']", f"steps: {steps}", "seed: 5", "looks:"]
    for number in range(looks):
        top, bottom = f"top{number}.png", f"bottom{number}.png"
        Image.fromarray(draw_garment(60 + number, Category.UPPER, (256, 192))).save(folder / top)
        Image.fromarray(draw_garment(80 + number, Category.LOWER, (256, 192))).save(folder / bottom)
        lines.append(f"  look{number}: {{upper: {top}, lower: {bottom}}}")
    (folder / "outfit.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
