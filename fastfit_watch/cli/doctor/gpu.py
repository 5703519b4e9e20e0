"""GPU, driver, torch and graphics memory. torch is loaded in a child: a broken one is a finding, not the end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastfit_watch.bundles.sizes import SIZES
from fastfit_watch.cli.doctor.finding import Finding, bad, good, poor
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.memory_ladder import Rung
from fastfit_watch.system.devices import find_devices

_QUERY = ("nvidia-smi", "--query-gpu=index,name,driver_version,memory.total", "--format=csv,noheader,nounits")
_DRIVER = Path("/proc/driver/nvidia/version")
_QUERY_S = 60.0
_TORCH_S = 180.0
_TESTED_TORCH = ((2, 11), (2, 13))
_AMPLE_MIB = max(size.card_bytes for size in SIZES.values()) // 2**20
_LEAST_DRIVER = {"13": 580, "12": 525}
"""The oldest driver, by its first number, for each CUDA release: NVIDIA, "CUDA Compatibility", minor versions."""
_OLDER_CUDA = ("12", "cu126")
_INSTALL = "Install again with 'pip install -c constraints.txt -e .': on a machine with a GPU that is the CUDA build."
_PROBE = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "count": 0, "lacking": [], "trouble": ""}
try:
    torch.cuda.init()
    found["count"] = torch.cuda.device_count()
    names = torch.cuda.get_arch_list()
    for index in range(found["count"]):
        major, minor = torch.cuda.get_device_capability(index)
        alike = [name for name in names if name.split("_")[-1].rstrip("af").startswith(str(major))]
        if not alike:
            found["lacking"].append(f"cuda:{index} (sm_{major}{minor})")
        torch.zeros(1, device=f"cuda:{index}").add_(1).item()
except Exception as error:
    found["trouble"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi."""

    index: int
    name: str
    driver: str
    memory_mib: int


def examine_gpus(config: Config) -> list[Finding]:
    """GPU, driver, torch, and memory against the settings."""
    wanted = [name for name in find_devices(config.engine.devices) if name.startswith("cuda")]
    gpus, trouble = _ask_driver()
    needed = max([1 if gpus else 0, *(_number(name) + 1 for name in wanted)])
    driver = gpus[0].driver if gpus else ""
    findings = [_judge_gpus(config, gpus, trouble, wanted), _judge_torch(_ask_torch(), needed, driver)]
    return findings + ([_judge_memory(config, gpus)] if gpus else [])


def _number(device: str) -> int:
    """1 of `cuda:1`; 0 of `cuda`. What is no number is as good as missing."""
    number = device.partition(":")[2]
    return int(number) if number.isdecimal() else 0 if not number else sys.maxsize - 1


def _ask_driver() -> tuple[list[Gpu], str]:
    """The GPUs, and a sentence if the driver cannot be asked although there is one."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_S, check=False)
    except FileNotFoundError:
        return [], "the driver is loaded, but nvidia-smi is not on the PATH" if _DRIVER.exists() else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi gives no answer ({type(error).__name__})"
    if done.returncode != 0:
        return [], " ".join((done.stdout + done.stderr).split()) or f"nvidia-smi ended with {done.returncode}"
    try:
        rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
        return [Gpu(int(index), name, driver, int(memory)) for index, name, driver, memory in rows], ""
    except ValueError:
        return [], f"nvidia-smi says something unexpected: {done.stdout[:200]!r}"


def _judge_gpus(config: Config, gpus: Sequence[Gpu], trouble: str, wanted: Sequence[str]) -> Finding:
    if trouble:
        return bad("gpu", f"{trouble}.", "Make 'nvidia-smi' work: reboot after a driver update, or install it again.")
    missing = [name for name in wanted if _number(name) >= len(gpus)]
    if missing:
        fix = "Correct engine.devices, or pass the GPU to this container (--gpus all)."
        return bad("gpu", f"the settings ask for {', '.join(missing)}; there are {len(gpus)} GPUs here.", fix)
    if not gpus and config.bundle == "mini":
        return good("gpu", "none; the mini bundle runs on the CPU")
    if not gpus:
        fix = "Pass the GPU to this container (--gpus all), install the NVIDIA driver, or use 'bundle: mini'."
        return poor("gpu", "none: looks are made on the CPU, minutes each.", fix)
    return good("gpu", f"{'; '.join(f'{gpu.index}: {gpu.name}' for gpu in gpus)}; driver {gpus[0].driver}")


def _ask_torch() -> dict[str, Any] | str:
    """What torch says of itself, or a sentence why it says nothing."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_TORCH_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it is not loaded after {_TORCH_S:.0f} s"
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        words = done.stderr.strip().splitlines()
        return words[-1] if words else f"its process ended with {done.returncode}"


def _judge_torch(found: dict[str, Any] | str, needed: int, driver: str) -> Finding:
    """needed: GPUs that the settings ask for. driver: its version; empty where it is unknown."""
    if isinstance(found, str):
        return bad("torch", f"it cannot be loaded: {found}.", _INSTALL)
    what = f"{found['version']}, {'CUDA ' + found['cuda'] if found['cuda'] else 'built for the CPU'}"
    if needed and not found["cuda"]:
        return bad("torch", f"{what}: it cannot use the GPU.", _INSTALL)
    if needed and found["trouble"]:
        message = f"{what}, but the GPU does not work: {' '.join(found['trouble'].split())[:200]}."
        return bad("torch", message, _advise_on_driver(found["version"], found["cuda"], driver))
    if found["count"] < needed:
        message = f"{what}: it sees {found['count']} GPUs, and the settings need {needed}."
        return bad("torch", message, "Correct CUDA_VISIBLE_DEVICES or engine.devices.")
    if found["lacking"]:
        return bad("torch", f"{what}: not built for {', '.join(found['lacking'])}.", "Install a newer or older build.")
    release = tuple(int(part) for part in found["version"].split("+")[0].split(".")[:2])
    if not _TESTED_TORCH[0] <= release <= _TESTED_TORCH[1]:
        return poor("torch", f"{what}: this program is tested with 2.11 to 2.13.", _INSTALL)
    return good("torch", what)


def _advise_on_driver(version: str, cuda: str, driver: str) -> str:
    """Say which driver this build of torch needs, and which build an older driver takes."""
    least = _LEAST_DRIVER.get(cuda.partition(".")[0], 0)
    first = driver.partition(".")[0]
    if not first.isdecimal() or int(first) >= least:
        return f"Update the NVIDIA driver to one for CUDA {cuda} or newer; see what 'nvidia-smi' says."
    advice = (
        f"Driver {driver} is too old: CUDA {cuda} needs {least} or newer. Update it, or rent a box with a newer one."
    )
    release, build = _OLDER_CUDA
    if cuda.startswith(release) or int(first) < _LEAST_DRIVER[release]:
        return advice
    return (
        f"{advice} Or take torch's CUDA {release} build, which we have not tried: pip install"
        f" 'torch=={version.partition('+')[0]}+{build}' --index-url https://download.pytorch.org/whl/{build}"
    )


def _judge_memory(config: Config, gpus: Sequence[Gpu]) -> Finding:
    """Against what the settings allow and begin with. A small GPU still works, lower on the memory ladder."""
    smallest = min(gpus, key=lambda gpu: gpu.memory_mib)
    what = f"{smallest.memory_mib / 1024:.1f} GiB on {smallest.name}"
    allowed_mib = config.engine.memory_bytes // 2**20 or smallest.memory_mib
    if allowed_mib > smallest.memory_mib:
        message = f"{what}: the settings allow {allowed_mib / 1024:.1f} GiB, so they are meant for a larger card."
        return poor("vram", message, "Take this card's profile from configs/, or correct engine.memory_bytes.")
    if allowed_mib < smallest.memory_mib:
        what = f"{allowed_mib / 1024:.1f} GiB allowed of {what}"
    if config.bundle == "mini" or allowed_mib >= _AMPLE_MIB:
        return good("vram", what)
    if config.memory.start.reaches(Rung.OFFLOAD):
        return good("vram", f"{what}; the settings begin at '{config.memory.start.value}'")
    fix = f"Set 'memory.start: {Rung.OFFLOAD.value}', to save the attempts that cannot succeed."
    return poor("vram", f"{what}, below {_AMPLE_MIB // 1024} GiB: looks are made lower on the memory ladder.", fix)
