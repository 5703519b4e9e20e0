"""What only a GPU can show: a whole try-on at real size, in bfloat16 and float32, and under caps of its memory.

    python tests/gpu/prove_real_size.py [--small] [--parts bf16,float32,...] [--json FILE]

The repository's root must be on PYTHONPATH. No network, no weights: they follow from the golden recipe. Every part is
on its own: one that fails prints its traceback, and the others go on. `--small` runs everything on the CPU in
miniature; a full device is then simulated. Exit code 0: all bounds are met.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from real_size import REAL, SMALL, KnownPerson, draw_body, draw_outfit, load_densepose, load_schp, write_bundle

from fastfit_watch.bench.weights import draw_picture
from fastfit_watch.config.settings import load_config
from fastfit_watch.domain.look import SamplingOptions
from fastfit_watch.domain.memory_ladder import Rung, ladder
from fastfit_watch.engine.bundle import Bundle
from fastfit_watch.engine.memory_ladder import descend, free_memory, limit_memory
from fastfit_watch.engine.tryon import LoadOptions, TryOnEngine, TryOnResult
from fastfit_watch.system.failpoints import VARIABLE

ROOT = Path(__file__).parents[2]
GIB = 2**30
VRAM_GIB = 8e9 / 2**30  # wanted of the rtx3090 profile: 8 GB
CARD_GIB = 12.0  # of the small profile
CONTEXT_GIB = 1.0  # what CUDA keeps beside torch's own memory: the profile's limit leaves it free
PSNR_DB = 40.0  # bfloat16 against float32; what lies outside the mask is equal and not counted
SAME_DB = 35.0  # a lower rung against `full`, both bfloat16
BODY_LABELS_EQUAL = 0.9  # a few hundred pixels of small bodies, mostly edges
LABELS_EQUAL = 0.995  # random networks nearly tie at many pixels
RUNG_STEPS = 8
DAEMON_SHARE = 0.6  # of what `full` needs here: the daemon's looks wear less, and are parsed by the mini parser
EXACT = (Rung.HALVES, Rung.OFFLOAD, Rung.SEQUENTIAL)


@dataclass
class Proof:
    """What all parts share: where the weights lie, what was measured, and whether bounds were met."""

    root: Path
    small: bool
    device: str
    measured: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    pictures: dict[str, TryOnResult] = field(default_factory=dict)
    engine: TryOnEngine | None = None
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.ones((1, 1), np.bool_))

    def bound(self, part: str, name: str, value: float, *, least: float = -math.inf, most: float = math.inf) -> None:
        """Note a number that must lie within bounds."""
        met = least <= value <= most
        self.measured[f"{part}: {name}"] = round(value, 4)
        limits = " and ".join(
            f"{word} {limit:g}" for word, limit in (("at least", least), ("at most", most)) if abs(limit) != math.inf
        )
        print(f"  {name}: {value:.4g}  (wanted {limits}: {'met' if met else 'NOT MET'})", flush=True)
        if not met:
            self.missed.append(f"{part}: {name}")

    def note(self, part: str, name: str, value: Any) -> None:
        """Note what has no bound."""
        self.measured[f"{part}: {name}"] = value
        print(f"  {name}: {value}", flush=True)

    @property
    def scale_steps(self) -> int:
        return 3 if self.small else 30

    def load(self, dtype: torch.dtype) -> TryOnEngine:
        """The engine with real-size parsers on the device, and a parsing that is known."""
        engine = TryOnEngine.load(Bundle.open(self.root), self.device, LoadOptions(dtype))
        if self.small:
            return replace(engine, parser=KnownPerson(None, ()))
        parsers = load_schp("lip", self.device), load_schp("atr", self.device)
        return replace(engine, parser=KnownPerson(load_densepose(self.device), parsers))

    def at(self, rung: Rung) -> TryOnEngine:
        """The one bfloat16 engine, on a rung of the ladder, as the worker moves it; nothing kept of earlier looks."""
        if self.engine is None:
            self.engine = self.load(torch.bfloat16)
        if self.engine.rung is not rung:
            self.engine = self.engine.on_rung(Rung.OFFLOAD)
            self.engine = self.engine.on_rung(rung)
        self.engine.drop_caches()
        return self.engine

    def make(self, engine: TryOnEngine, steps: int) -> TryOnResult:
        """One look: two garments, shoes and a bag."""
        options = SamplingOptions(steps=steps, seed=7, guidance=2.5)
        prepared = engine.prepare(draw_picture(0, 1600, 1200), draw_outfit(), options)
        self.mask = prepared.mask > 0
        return engine.sample(prepared)


def bf16(proof: Proof) -> None:
    """bfloat16 on the rung `full`: seconds, and peak VRAM under 8 GB, of which torch may not use a byte more."""
    config = load_config(ROOT / "configs" / "rtx3090.yaml")
    proof.note("bf16", "profile", f"rtx3090: dtype {config.engine.dtype}, start {config.memory.start}")
    limit_memory(proof.device, int((VRAM_GIB - CONTEXT_GIB) * GIB))
    engine, allocated, reserved = proof.at(Rung.FULL), 0.0, 0.0
    for name in ("first", "second"):
        began_s = time.perf_counter()
        result = proof.make(engine, proof.scale_steps)
        proof.note("bf16", f"{name} look, seconds", round(time.perf_counter() - began_s, 2))
        proof.note("bf16", f"{name} look, by stage", {stage: round(s, 3) for stage, s in result.seconds.items()})
        peaks = _peak_gib(proof.device, result)
        allocated, reserved = max(allocated, peaks[0]), max(reserved, peaks[1])
    proof.pictures["bf16"] = result
    proof.note("bf16", "peak VRAM allocated, GiB", allocated)
    proof.bound("bf16", "peak VRAM reserved, GiB", reserved, most=VRAM_GIB - CONTEXT_GIB)
    proof.bound("bf16", "peak VRAM with CUDA's own part, GiB", reserved + CONTEXT_GIB, most=VRAM_GIB)
    proof.engine = None  # later parts choose their kernels without the limit


def float32(proof: Proof) -> None:
    """float32 without TensorFloat-32, image against image."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        engine = proof.load(torch.float32)
        began_s = time.perf_counter()
        result = proof.make(engine, proof.scale_steps)
        proof.note("float32", "seconds", round(time.perf_counter() - began_s, 2))
        if "bf16" not in proof.pictures:
            proof.pictures["bf16"] = proof.make(proof.at(Rung.FULL), proof.scale_steps)
    finally:
        torch.backends.cudnn.allow_tf32 = True
    psnr, largest, mean = _compare(proof.pictures["bf16"], result, proof.mask)
    proof.bound("float32", "bfloat16 against float32, PSNR in dB", psnr, least=PSNR_DB)
    proof.note("float32", "largest and mean difference, of 255", (largest, round(mean, 3)))


def rungs(proof: Proof) -> None:
    """Every exact rung against `full`, and what it takes. Then tiles, which is not exact."""
    full = proof.make(proof.at(Rung.FULL), RUNG_STEPS)
    for rung in (Rung.FULL, *EXACT, Rung.TILES):
        engine = proof.at(rung)
        _reset_peak(proof.device)
        began_s = time.perf_counter()
        result = proof.make(engine, RUNG_STEPS)
        seconds = round(time.perf_counter() - began_s, 2)
        allocated, reserved = _peak_gib(proof.device, result)
        proof.note("rungs", f"{rung}: seconds, GiB allocated, GiB reserved", (seconds, allocated, reserved))
        proof.measured[f"needs {rung}"] = allocated
        psnr, largest, _ = _compare(result, full, proof.mask)
        if rung in EXACT:
            proof.bound("rungs", f"{rung}: PSNR against full in dB", psnr, least=SAME_DB)
        else:
            proof.note("rungs", f"{rung}: PSNR in dB, largest difference", (round(psnr, 2), largest))


def card12(proof: Proof) -> None:
    """The 12 GB profile: torch may use its limit and not a byte more, and pictures keep their size."""
    config = load_config(ROOT / "configs" / "rtx3060-12gb.yaml")
    limit = config.engine.memory_bytes
    proof.bound("card12", "limit of torch's memory, GiB", limit / GIB, most=CARD_GIB - CONTEXT_GIB)
    limit_memory(proof.device, limit)
    allowed = ladder(config.memory.start, allow_smaller=config.memory.allow_smaller)
    _, reserved = _peak_gib(proof.device, _climb(proof, "card12", allowed, Rung.FULL))
    proof.bound("card12", "peak VRAM reserved, GiB", reserved, most=limit / GIB)


def shortage(proof: Proof) -> None:
    """A real out-of-memory error at the top, and at every rung above the one that a cap leaves room for."""
    if proof.small:
        for goal in EXACT:
            higher = [rung for rung in Rung if goal.reaches(rung) and rung is not goal]
            os.environ[VARIABLE] = " ".join(f"memory.{rung}.decode:1:ENOMEM" for rung in higher)
            _climb(proof, f"shortage to {goal}", ladder(Rung.FULL, allow_smaller=False), goal)
        return
    for rung in EXACT:
        above = list(Rung)[list(Rung).index(rung) - 1]
        need, too_much = (proof.measured.get(f"needs {each}") for each in (rung, above))
        if need is None or too_much is None:
            raise RuntimeError("needs what the part 'rungs' measures")
        proof.at(Rung.OFFLOAD)
        cap = min((need + too_much) / 2, 0.97 * too_much)
        proof.note(f"shortage to {rung}", "cap, GiB", round(cap, 2))
        limit_memory(proof.device, int(cap * GIB))
        _climb(proof, f"shortage to {rung}", ladder(Rung.FULL, allow_smaller=False), None)


def _climb(proof: Proof, part: str, allowed: Sequence[Rung], goal: Rung | None) -> TryOnResult:
    """Go down the ladder as the worker does. goal: where it must end; None: anywhere but at the top."""
    tried: list[str] = []
    result = descend(
        allowed,
        lambda rung: proof.make(proof.at(rung), RUNG_STEPS),
        lambda rung, error: tried.append(f"{rung} ({error.stage})"),
    )
    proof.note(part, "ran out of memory on", ", ".join(tried) or "no rung")
    proof.note(part, "made on rung", str(result.rung))
    size = (SMALL if proof.small else REAL).person
    proof.bound(part, "height of the picture", result.image.height, least=size[0], most=size[0])
    if (goal is not None and result.rung is not goal) or (goal is None and not tried):
        proof.missed.append(f"{part}: made on {result.rung}, wanted {goal or 'a lower one'}")
    return result


def toolkit(proof: Proof) -> None:
    """SCHP and DensePose at real size: labels and features on the device against those of the CPU."""
    if proof.small:
        proof.note("toolkit", "skipped", "needs a GPU")
        return
    picture = np.asarray(draw_picture(5, 1024, 768))
    for dataset in ("lip", "atr"):
        on_cpu, on_device = load_schp(dataset, "cpu"), load_schp(dataset, proof.device)
        labels = [parser.parse(picture) for parser in (on_cpu, on_device)]
        began_s = time.perf_counter()
        on_device.parse(picture)
        proof.note("toolkit", f"SCHP {dataset}, seconds", round(time.perf_counter() - began_s, 3))
        share = float((labels[0] == labels[1]).mean())
        proof.bound("toolkit", f"SCHP {dataset}, share of equal labels", share, least=LABELS_EQUAL)
    bodies = {device: load_densepose(device) for device in ("cpu", proof.device)}
    person = draw_body(1024, 768)
    labels = [body.label(person) for body in bodies.values()]
    began_s = time.perf_counter()
    bodies[proof.device].label(person)
    proof.note("toolkit", "DensePose, seconds", round(time.perf_counter() - began_s, 3))
    on_body = (labels[0] > 0) | (labels[1] > 0)
    proof.bound("toolkit", "DensePose, pixels on a body", int(on_body.sum()), least=500)
    share = float((labels[0] == labels[1])[on_body].mean())
    proof.bound("toolkit", "DensePose, share of equal labels there", share, least=BODY_LABELS_EQUAL)
    noise = torch.randn(1, 3, 800, 608, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pyramids = [list(_tensors(body.network.backbone(noise.to(device)))) for device, body in bodies.items()]
    worst = max(float((one.cpu() - two.cpu()).norm() / one.cpu().norm()) for one, two in zip(*pyramids, strict=True))
    proof.bound("toolkit", "DensePose backbone, largest relative difference", worst, most=0.01)


def daemon(proof: Proof) -> None:
    """The running daemon on the real-size bundle: a cap makes its engine run out of memory, and no look is lost."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.running_daemon import draw_upload

    home = Path(tempfile.mkdtemp())
    draw_upload(home / "inputs" / "spring", looks=2, steps=4)
    need = proof.measured.get(f"needs {Rung.FULL}")
    proof.engine = None
    free_memory(proof.device)
    cap = 0 if proof.small or need is None else int(DAEMON_SHARE * need * GIB)
    config = {
        "bundle": str(proof.root),
        "watch": {"settle_s": 1, "scan_s": 0.5},
        "limits": {"min_free_bytes": 0},
        "engine": {"devices": [proof.device], "memory_bytes": cap, "backoff_s": 0.5},
    }
    (home / "config.json").write_text(json.dumps(config), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    if not cap:
        environment[VARIABLE] = "memory.full.step:2:ENOMEM"
    command = [sys.executable, "-m", "fastfit_watch", "run", "--once", "--config", "config.json"]
    done = subprocess.run(
        command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    said = done.stderr.splitlines()
    if done.returncode == 0:
        said = [line for line in said if "rung" in line or "WARNING" in line or "ERROR" in line]
    print("\n".join(f"    {line}" for line in said[-20:]))
    looks = json.loads((home / "outputs" / "spring" / "report.json").read_text(encoding="utf-8"))["looks"]
    for look in looks:
        made = {key: look.get(key) for key in ("status", "rung", "shortages", "peak_vram_bytes", "attempts")}
        proof.note("daemon", look["look"], made)
    proof.bound("daemon", "looks made", sum(look["status"] == "done" for look in looks), least=2)
    proof.bound("daemon", "rungs with too little memory", len(looks[0].get("shortages", {})), least=1)


PARTS: dict[str, Callable[[Proof], None]] = {
    "bf16": bf16,
    "float32": float32,
    "rungs": rungs,
    "card12": card12,
    "shortage": shortage,
    "toolkit": toolkit,
    "daemon": daemon,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="in miniature, on the CPU")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    settings = parser.parse_args()
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scale = SMALL if settings.small else REAL
        root = write_bundle(Path(folder) / "recipe", scale)
        device = "cpu" if settings.small or not torch.cuda.is_available() else "cuda:0"
        proof = Proof(root, settings.small, device)
        name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
        proof.note("all", "device", f"{name}, torch {torch.__version__}")
        proof.note("all", "weights drawn and written, seconds", round(time.perf_counter() - began_s, 1))
        for part in settings.parts.split(","):
            _run(proof, part)
    seconds = round(time.perf_counter() - began_s, 1)
    proof.note("all", "seconds", seconds)
    print(f"\n{'measured':60} value")
    for key, value in proof.measured.items():
        print(f"{key:60} {value}")
    print("ALL BOUNDS MET" if not proof.missed else f"NOT MET: {'; '.join(proof.missed)}")
    summary = json.dumps({"measured": proof.measured, "missed": proof.missed})
    print(f"JSON {summary}")
    if settings.json is not None:
        settings.json.write_text(summary, encoding="utf-8")
    return 1 if proof.missed else 0


def _run(proof: Proof, part: str) -> None:
    """One part, from a clean device. What it raises is printed and counts as missed."""
    began_s = time.perf_counter()
    print(f"\n{part}: {PARTS[part].__doc__}", flush=True)
    os.environ.pop(VARIABLE, None)
    if proof.device != "cpu":
        torch.cuda.set_per_process_memory_fraction(1.0, proof.device)
    try:
        PARTS[part](proof)
    except Exception as error:  # noqa: BLE001 - the other parts go on
        traceback.print_exc()
        proof.missed.append(f"{part}: {type(error).__name__}: {str(error)[:200]}")
        proof.engine = None  # whatever state it is in
    gc.collect()
    free_memory(proof.device)
    proof.note(part, "seconds in all", round(time.perf_counter() - began_s, 1))


def _compare(one: TryOnResult, two: TryOnResult, mask: NDArray[np.bool_]) -> tuple[float, int, float]:
    """PSNR in dB, largest and mean absolute difference in levels, of what was repainted."""
    first, second = (np.asarray(result.image).astype(float)[mask] for result in (one, two))
    difference = np.abs(first - second)
    mean_square = float((difference**2).mean())
    psnr = 10 * math.log10(255**2 / mean_square) if mean_square else 99.0
    return psnr, int(difference.max()), float(difference.mean())


def _tensors(value: Any) -> list[torch.Tensor]:
    parts = value.values() if isinstance(value, dict) else value
    return [value] if isinstance(value, torch.Tensor) else [tensor for part in parts for tensor in _tensors(part)]


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gib(device: str, result: TryOnResult) -> tuple[float, float]:
    """Most memory that a look had allocated, and that torch held for it, in GiB.

    The engine counts anew between preparing and sampling; what torch holds only grows meanwhile, but for offloading,
    where it is given back.
    """
    if device == "cpu":
        return 0.0, 0.0
    allocated = result.peak_vram_bytes or 0
    return round(allocated / GIB, 3), round(max(allocated, torch.cuda.max_memory_reserved(device)) / GIB, 3)


if __name__ == "__main__":
    sys.exit(main())
