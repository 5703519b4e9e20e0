"""Whole jobs through the real daemon, files and all: cold start, pictures an hour, GPU busy share, cache hits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fastfit_watch.bench.weights import draw_picture
from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.domain.look import Category

_SETTLE_S = 0.2
_POLL_S = 0.05
_BUSY_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200")


@dataclass(frozen=True)
class JobRun:
    """One job, or several uploaded together. Seconds are wall time from the claim to the last picture on disk.

    engine_s : the engine's own stages, summed. busy_share : of that time, in which the GPU ran something, as the driver
    says; None without a GPU. cache : `garment.hit` and the like -> how often.
    """

    name: str
    pictures: int
    seconds: float
    engine_s: float
    stages: Mapping[str, float]
    busy_share: float | None
    peak_vram_bytes: int | None
    cache: Mapping[str, int]

    @property
    def pictures_per_hour(self) -> float:
        """Pictures an hour at this pace."""
        return 3600 * self.pictures / self.seconds


class RunningDaemon:
    """A daemon on folders of its own. `drop` uploads a job and waits for its report."""

    def __init__(self, root: Path, bundle: Path, device: str) -> None:
        self.inputs, self.outputs = root / "inputs", root / "outputs"
        self._busy = _BusyGpu() if device.startswith("cuda") else None
        root.mkdir(parents=True, exist_ok=True)
        settings = {
            "inputs": str(self.inputs),
            "outputs": str(self.outputs),
            "logs": str(root / "logs"),
            "bundle": str(bundle),
            "engine": {"devices": [device]},
            "watch": {"settle_s": _SETTLE_S, "scan_s": 0.5},
        }
        config = root / "bench.yaml"
        config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        self._log = (root / "daemon.log").open("wb")
        self.began_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastfit_watch", "run", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def drop(self, name: str, people: Sequence[int], outfits: Sequence[Sequence[Category]], timeout_s: float) -> JobRun:
        """Upload people x outfits, numbers and slots, and wait until all pictures are made."""
        self._draw(name, people, outfits).rename(self.inputs / name)
        return _read(name, [self._wait(name, timeout_s)], self._busy)

    def drop_together(
        self, name: str, jobs: Sequence[tuple[Sequence[int], Sequence[Sequence[Category]]]], timeout_s: float
    ) -> JobRun:
        """Upload several jobs at once, of pictures that no other job has, and wait for all."""
        drawn = {
            f"{name}{number}": self._draw(f"{name}{number}", people, outfits, 10_000 * (number + 1))
            for number, (people, outfits) in enumerate(jobs)
        }
        for each, hidden in drawn.items():
            hidden.rename(self.inputs / each)
        return _read(name, [self._wait(each, timeout_s) for each in drawn], self._busy)

    def _draw(
        self, name: str, people: Sequence[int], outfits: Sequence[Sequence[Category]], drawn_from: int = 0
    ) -> Path:
        """Make an upload in a folder that the daemon does not see yet."""
        hidden = self.inputs / f".{name}"
        hidden.mkdir(parents=True)
        for person in people:
            draw_picture(drawn_from + 50 + person).save(hidden / f"person{person}.jpg", quality=92)
        looks: dict[str, dict[str, str]] = {}
        for number, slots in enumerate(outfits):
            looks[f"look{number}"] = {slot.value: f"{slot.value}{number}.png" for slot in slots}
            for slot in slots:
                drawn = draw_picture(drawn_from + 1000 + 10 * number + slot.label)
                drawn.save(hidden / f"{slot.value}{number}.png")
        manifest = {"people": [f"person{person}.jpg" for person in people], "seed": 1, "looks": looks}
        (hidden / "outfit.yaml").write_text(json.dumps(manifest), encoding="utf-8")
        return hidden

    def stop(self) -> None:
        """End the daemon."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        if self._busy is not None:
            self._busy.stop()

    def _wait(self, name: str, timeout_s: float) -> Mapping[str, Any]:
        """The report of a job."""
        path = self.outputs / name / "report.json"
        ends_s = time.monotonic() + timeout_s
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > ends_s:
                words = Path(self._log.name).read_text(encoding="utf-8", errors="replace")[-1500:]
                raise FastFitError(f"The daemon made no report for {name}. Its last words: {words}")
            time.sleep(_POLL_S)
        report: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if report["status"] != "done":
            raise FastFitError(f"{name} ended as {report['status']}: {report['reason']}")
        return report


@contextmanager
def running_daemon(root: Path, bundle: Path, device: str) -> Iterator[RunningDaemon]:
    """A daemon for the enclosed work."""
    daemon = RunningDaemon(root, bundle, device)
    try:
        yield daemon
    finally:
        daemon.stop()


class _BusyGpu:
    """What the driver says about the first visible GPU, five times a second."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        self._process = subprocess.Popen([*_BUSY_QUERY, "-i", visible], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.strip().isdigit():
                self._samples.append((time.time(), float(line)))

    def share(self, begin_s: float, end_s: float) -> float | None:
        """Mean share between two Unix times; None if it was never asked then."""
        seen = [value for at_s, value in self._samples if begin_s <= at_s <= end_s]
        return sum(seen) / len(seen) / 100 if seen else None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def _read(name: str, reports: Sequence[Mapping[str, Any]], busy: _BusyGpu | None) -> JobRun:
    begin_s = min(datetime.fromisoformat(report["claimed"]).timestamp() for report in reports)
    end_s = max(datetime.fromisoformat(report["finished"]).timestamp() for report in reports)
    stages: Counter[str] = Counter()
    cache: Counter[str] = Counter()
    looks = [look for report in reports for look in report["looks"]]
    for look in looks:
        stages.update(look["seconds"])
        cache.update(look.get("cache", {}))
    return JobRun(
        name,
        len(looks),
        end_s - begin_s,
        sum(float(report["engine_seconds"]) for report in reports),
        dict(stages),
        busy.share(begin_s, end_s) if busy is not None else None,
        max((report["peak_vram_bytes"] for report in reports if report["peak_vram_bytes"]), default=None),
        dict(cache),
    )
