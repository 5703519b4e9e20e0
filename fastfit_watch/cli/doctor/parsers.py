"""What the settings ask of the human toolkit beyond what is always there: DWPose on a GPU, detectron2's DensePose."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from fastfit_watch.bundles.catalogue import MINI
from fastfit_watch.cli.doctor.finding import Finding, bad, good
from fastfit_watch.config.settings import Config

_CUDA = "CUDAExecutionProvider"
_PROBE = "import onnxruntime; print(*onnxruntime.get_available_providers())"
_PROBE_S = 60.0
_INSTALL_DETECTRON2 = (
    "pip install --no-build-isolation 'detectron2-densepose @"
    " git+https://github.com/facebookresearch/detectron2@02b5c4e#subdirectory=projects/DensePose'"
)


def examine_parsers(config: Config) -> Finding:
    """Can DWPose and DensePose run as the settings ask? Whether a GPU really takes DWPose, only the engine can see."""
    if config.bundle == MINI:
        return good("parsers", "not needed: the mini bundle has its own")
    if config.engine.densepose == "detectron2":
        missing = [name for name in ("torchvision", "detectron2", "densepose") if find_spec(name) is None]
        if missing:
            fix = f"{_INSTALL_DETECTRON2}, or set 'engine.densepose: builtin'."
            return bad("parsers", f"'engine.densepose: detectron2' needs {', '.join(missing)}.", fix)
    if config.engine.pose == "gpu":
        trouble = _ask_onnxruntime()
        if trouble:
            return bad(
                "parsers", f"'engine.pose: gpu': {trouble}.", "Install onnxruntime-gpu alone, or use 'pose: cpu'."
            )
    return good("parsers", f"DWPose on the {config.engine.pose.upper()}, DensePose {config.engine.densepose}")


def _ask_onnxruntime() -> str:
    """Why onnxruntime cannot use CUDA here, as far as it says; empty if it could."""
    command = [sys.executable, "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"onnxruntime is not loaded after {_PROBE_S:.0f} s"
    if done.returncode != 0:
        return f"onnxruntime cannot be loaded: {' '.join(done.stderr.split())[-200:]}"
    return "" if _CUDA in done.stdout.split() else f"onnxruntime offers {', '.join(done.stdout.split())} only"
