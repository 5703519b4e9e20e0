"""What `bench` does: every part on its own, so that one that fails prints its traceback and the others go on."""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fastfit_watch.bench.baseline import PublishedBaseline
from fastfit_watch.bench.baseline_job import time_plain_job
from fastfit_watch.bench.plot import Panel, draw
from fastfit_watch.bench.single_looks import (
    OUTFITS,
    PUBLISHED_H200_S,
    Compared,
    compare,
    count_seconds,
    measure_limits,
    prepare,
    time_batch,
    time_preset,
    time_single,
)
from fastfit_watch.bench.weights import REAL, SMALL, write_bundle
from fastfit_watch.bench.whole_jobs import JobRun, running_daemon
from fastfit_watch.domain.look import Preset, SamplingOptions
from fastfit_watch.engine.bundle import Bundle
from fastfit_watch.engine.tryon import TryOnEngine
from fastfit_watch.system.malloc import keep_freed_memory

GIB = 2**30
_JOB_TIMEOUT_S = 600.0
_BATCHES = (1, 2, 4)
_PLAIN_PEOPLE = 3
PARTS = ("limits", "singles", "steps", "presets", "batches", "jobs")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    bundle : a directory; None writes seeded weights of the released size. small : tiny networks, to try the command.
    steps : of the exact pictures. people : of the jobs. parts : of `PARTS`. output : folder for the files.
    """

    device: str
    bundle: Path | None = None
    small: bool = False
    steps: int = 30
    repeats: int = 3
    people: int = 8
    parts: tuple[str, ...] = PARTS
    output: Path | None = None


@dataclass
class Bench:
    """One run: its measurements, and what went wrong."""

    options: BenchOptions
    measured: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _folder: Path = Path()

    def run(self) -> dict[str, Any]:
        """Measure all parts, print the tables and write the files; returns what `--json` prints."""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            root = Path(folder)
            self._folder = root
            bundle = self.options.bundle or write_bundle(
                root / "bundle", SMALL if self.options.small else REAL, self.options.device
            )
            self.measured["machine"] = _machine(self.options.device)
            _say(f"{self.measured['machine']}, bundle {bundle.name}, {self.options.steps} steps")
            if set(self.options.parts) - {"jobs"}:
                self._run_in_process(bundle)
            self._part("jobs", partial(self._jobs, root, bundle))
        if self.options.output is not None:
            self._write_files(self.options.output)
        return {**self.measured, "faults": self.faults}

    def _run_in_process(self, bundle: Path) -> None:
        keep_freed_memory()  # as the daemon's engine process does
        began_s = time.perf_counter()
        engine = TryOnEngine.load(Bundle.open(bundle), self.options.device)
        self.measured["load_s"] = time.perf_counter() - began_s
        choices = engine.fast.attention.choices if engine.fast is not None else {}
        self.measured["kernels"] = {f"{each.head_size}x{each.queries}": kernel for each, kernel in choices.items()}
        _say(f"engine loaded in {self.measured['load_s']:.1f} s; attention: {self.measured['kernels'] or 'default'}")
        self._part("limits", partial(self._limits, engine))
        self._part("singles", partial(self._singles, engine))
        self._part("steps", partial(self._steps, engine))
        self._part("presets", partial(self._presets, engine))
        self._part("batches", partial(self._batches, engine))
        del engine
        if torch.device(self.options.device).type == "cuda":
            torch.cuda.empty_cache()

    def _part(self, name: str, measure: Callable[[], None]) -> None:
        if name not in self.options.parts:
            return
        began_s = time.perf_counter()
        try:
            measure()
        except Exception:  # noqa: BLE001 - the other parts are still worth their time
            self.faults.append(name)
            traceback.print_exc()
        _say(f"   ({name}: {time.perf_counter() - began_s:.1f} s)")

    def _limits(self, engine: TryOnEngine) -> None:
        limits = measure_limits(engine)
        if limits is None:
            return
        self.measured["limits"] = {**asdict(limits), "ideal_step_s": limits.ideal_step_s}
        kernels = ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in limits.kernels.items())
        _say(f"ceilings: matrix {limits.matrix_rate / 1e12:.0f} TFLOP/s, attention {limits.attention_rate / 1e12:.0f}")
        _say(f"largest attention, full outfit: {kernels}")

    def _singles(self, engine: TryOnEngine) -> None:
        options = SamplingOptions(steps=self.options.steps, seed=1)
        made = [time_single(engine, outfit, options, self.options.repeats) for outfit in OUTFITS]
        # Only now, so that its weights are not counted among the engine's memory.
        baseline = PublishedBaseline(engine.bundle, engine.device, engine.unet.dtype)
        _say(f"{'':14}{'engine':>9}{'rival':>9}{'published':>11}{'times':>7}{'PSNR':>7}{'peak':>10}  stages")
        singles = []
        for single in made:
            compared = compare(single, baseline, engine, max(1, self.options.repeats - 1))
            singles.append({**asdict(compared), "times": compared.times})
            _say(_line(compared))
        self.measured["singles"] = singles
        people = min(self.options.people, _PLAIN_PEOPLE)
        seconds = time_plain_job(baseline, engine, people, OUTFITS["full outfit"], options, self._folder / "plain")
        self.measured["rival_job_seconds_each"] = seconds
        _say(f"the rival, file after file: {seconds:.3f} s for each picture of a full outfit")
        self._share(engine, singles[-1]["stages"]["denoise"])

    def _share(self, engine: TryOnEngine, denoise_s: float) -> None:
        limits = self.measured.get("limits")
        if limits is not None:
            share = limits["ideal_step_s"] * self.options.steps / denoise_s
            self.measured["share_of_ceilings"] = share
            _say(f"a step of the full outfit takes {1000 * denoise_s / self.options.steps:.1f} ms, {share:.0%} of both")

    def _steps(self, engine: TryOnEngine) -> None:
        seconds = {}
        for steps in (1, self.options.steps // 2, self.options.steps):
            options = SamplingOptions(steps=max(1, steps), seed=1)
            engine.sample(prepare(engine, OUTFITS["full outfit"], options))
            result = engine.sample(prepare(engine, OUTFITS["full outfit"], options))
            seconds[max(1, steps)] = count_seconds(result.seconds)
        self.measured["steps"] = seconds

    def _presets(self, engine: TryOnEngine) -> None:
        seconds = {preset.value: time_preset(engine, preset, self.options.repeats) for preset in Preset}
        self.measured["presets"] = seconds
        exact = seconds[Preset.EXACT]
        _say(", ".join(f"{name} {value:.3f} s ({exact / value:.1f}x)" for name, value in seconds.items()))

    def _batches(self, engine: TryOnEngine) -> None:
        steps = max(1, self.options.steps // 3)
        seconds = {count: time_batch(engine, count, "one garment", steps) for count in _BATCHES}
        self.measured["batches"] = seconds
        _say(
            "seconds for each look of a batch: "
            + ", ".join(f"{count}: {value:.3f}" for count, value in seconds.items())
        )

    def _jobs(self, root: Path, bundle: Path) -> None:
        outfit, people = OUTFITS["full outfit"], range(self.options.people)
        with running_daemon(root / "daemon", bundle, self.options.device) as daemon:
            daemon.drop("cold", [99], [OUTFITS["one garment"]], _JOB_TIMEOUT_S)
            cold_s = time.monotonic() - daemon.began_s
            daemon.drop("warm", [96], [outfit], _JOB_TIMEOUT_S)
            runs = [
                daemon.drop("single", [98], [outfit], _JOB_TIMEOUT_S),
                daemon.drop("people", people, [outfit], _JOB_TIMEOUT_S),
                daemon.drop("outfits", [97], [outfit] * len(people), _JOB_TIMEOUT_S),
                # What a busy machine meets: one upload waits while another is worked on.
                daemon.drop_together("queue", [(people, [outfit]), ([97], [outfit] * len(people))], _JOB_TIMEOUT_S),
            ]
        self.measured["cold_start_s"] = cold_s
        self.measured["jobs"] = [{**asdict(run), "pictures_per_hour": run.pictures_per_hour} for run in runs]
        _say(f"cold start, process to first report: {cold_s:.1f} s")
        for run in runs:
            _say(_job_line(run, self.measured.get("rival_job_seconds_each")))

    def _write_files(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.json").write_text(json.dumps(self.measured, indent=2) + "\n", encoding="utf-8")
        singles = self.measured.get("singles", [])
        by_count = {"engine": "seconds", "rival": "rival_seconds"}
        references = {
            name: [(len(OUTFITS[each["outfit"]]), each[key]) for each in singles] for name, key in by_count.items()
        }
        panels = [
            Panel("One picture", "references", references),
            Panel("Full outfit", "steps", {"engine": list(self.measured.get("steps", {}).items())}),
            Panel(
                "One garment, each look", "looks together", {"engine": list(self.measured.get("batches", {}).items())}
            ),
        ]
        (folder / "bench.svg").write_text(draw(panels), encoding="utf-8")


def _line(single: Compared) -> str:
    stages = " ".join(f"{name} {1000 * value:.0f}" for name, value in single.stages.items())
    peak = f"{single.peak_vram_bytes / GIB:.1f} GiB" if single.peak_vram_bytes else "-"
    same = "" if single.first_equals_later else "  FIRST AND LATER PICTURES DIFFER"
    return (
        f"{single.outfit:14}{single.seconds:8.3f}s{single.rival_seconds:8.3f}s{PUBLISHED_H200_S[single.outfit]:10.2f}s"
        f"{single.times:7.2f}{single.psnr_db:7.1f}{peak:>10}  {stages} ms{same}"
    )


def _job_line(run: JobRun, rival_s: float | None) -> str:
    busy = f", GPU busy {run.busy_share:.0%}" if run.busy_share is not None else ""
    baseline = f", {rival_s * run.pictures / run.seconds:.2f}x the rival's" if rival_s and run.pictures > 1 else ""
    hits = sum(count for name, count in run.cache.items() if name.endswith(".hit"))
    misses = sum(count for name, count in run.cache.items() if name.endswith(".miss"))
    above = f", {run.seconds - run.engine_s:+.2f} s to the engine's own"
    return (
        f"job {run.name}: {run.pictures} pictures in {run.seconds:.2f} s, {run.pictures_per_hour:.0f} an hour"
        f"{baseline}{busy}, cache {hits} of {hits + misses}{above}"
    )


def _machine(device: str) -> str:
    name = (
        torch.cuda.get_device_name(device)
        if torch.device(device).type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    return f"{device} ({name}), torch {torch.__version__}"


def _say(line: str) -> None:
    print(line, flush=True)
