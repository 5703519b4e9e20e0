"""Which devices this machine has, found without loading torch."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

AUTO = "auto"
_LIST_GPUS = ("nvidia-smi", "-L")
_LIST_TIMEOUT_S = 30.0
_DRIVER_GPUS = Path("/proc/driver/nvidia/gpus")


def find_devices(wanted: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The devices to run an engine on: `auto` becomes every visible CUDA device, else `cpu`. Order kept, no repeats."""
    found: list[str] = []
    for name in wanted:
        found += _every_device(environment) if name == AUTO else [name]
    return tuple(dict.fromkeys(found))


def _every_device(environment: Mapping[str, str]) -> list[str]:
    count = count_gpus(environment)
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def count_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """How many CUDA devices torch would see. CUDA_VISIBLE_DEVICES narrows what the driver lists.

    Entries of CUDA_VISIBLE_DEVICES after the first invalid number are hidden, as CUDA does it.
    """
    present = len(list_gpus())
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None or present == 0:
        return present
    shown = 0
    for entry in visible.split(","):
        name = entry.strip()
        if (name.isdigit() and int(name) >= present) or not name or name.startswith("-"):
            break
        shown += 1
    return shown


def list_gpus() -> tuple[str, ...]:
    """GPUs as nvidia-smi lists them, `GPU 0: NVIDIA H200`; where it is missing, the addresses that the driver lists."""
    try:
        listed = subprocess.run(_LIST_GPUS, capture_output=True, text=True, timeout=_LIST_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return tuple(sorted(f"GPU {path.name}" for path in _DRIVER_GPUS.glob("*")))
    return tuple(line.split(" (UUID")[0] for line in listed.stdout.splitlines() if line.startswith("GPU "))
