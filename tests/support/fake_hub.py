"""A machine that knows only the stand-in hub, and what that hub holds: the released repositories in small."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from support.hub_server import HubServer

from fastfit_watch.system.exit_codes import ExitCode

MODEL, SINGLE, TOOLKIT = "zhengchong/FastFit-MR-1024", "zhengchong/FastFit-SR-1024", "zhengchong/Human-Toolkit"
UNET = "unet/diffusion_pytorch_model.safetensors"
PICKLE = "DensePose/model_final_162be9.pkl"
NAME = "fastfit-mr-1024"
TOKEN = "hf_secretOfAnna"  # noqa: S105 - it opens nothing
PATIENCE_S = 240.0


def _content(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def safetensors(name: str, size: int) -> bytes:
    """A whole safetensors file with one tensor of so many bytes."""
    table = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(table).to_bytes(8, "little") + table + _content(name, size)


def model_files() -> dict[str, bytes]:
    """What the released repository holds, in small, with files nobody needs."""
    return {
        "README.md": b"# The card",
        "scheduler/scheduler_config.json": b"{}\n",
        "unet/config.json": b'{"a": 1}\n',
        UNET: safetensors("unet", 800_000),
        "vae/config.json": b'{"b": 2}\n',
        "vae/diffusion_pytorch_model.safetensors": safetensors("vae", 200_000),
        "samples/huge.bin": _content("huge", 50_000),
    }


def toolkit_files() -> dict[str, bytes]:
    """What the toolkit's repository holds, in small."""
    return {
        "DWPose/yolox_l.onnx": _content("yolox", 60_000),
        "DWPose/dw-ll_ucoco_384.onnx": _content("ucoco", 60_000),
        PICKLE: _content("densepose", 100_000) + b".",
        "SCHP/exp-schp-lip.pth": _content("lip", 100_000),
        "SCHP/exp-schp-atr.pth": _content("atr", 100_000),
        "SCHP/exp-schp-pascal.pth": _content("pascal", 100_000),
    }


WANTED = {name: data for name, data in model_files().items() if name.partition("/")[0] in ("scheduler", "unet", "vae")}
WANTED |= {f"parser/{name}": data for name, data in toolkit_files().items() if "pascal" not in name}
TOTAL_BYTES = sum(map(len, WANTED.values()))


class HubFixture:
    """A machine in a folder of its own, that knows only the stand-in hub."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home, self.endpoint = home, endpoint
        self.root = home / "Models" / NAME

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {**kept, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home / "hf"), **changes}

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fastfit_watch", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.home, env=self.environment(changes), stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *arguments: str, **changes: str) -> tuple[int, str]:
        """Run a command to its end; its exit code and everything it said."""
        process = self.start(*arguments, **changes)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err, err
        return process.returncode, out + err

    def pull(self, **changes: str) -> str:
        code, text = self.run("models", "pull", **changes)
        assert code == ExitCode.OK, text
        return text

    def listed(self) -> dict[str, Any]:
        code, text = self.run("models", "list", "--json")
        assert code == ExitCode.OK
        return next(entry for entry in json.loads(text) if entry["name"] == NAME)

    def assert_whole(self, wanted: Mapping[str, bytes] = WANTED) -> None:
        here = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        assert here == {*wanted, "bundle.json", "fetched.json"}
        for name, data in wanted.items():
            assert (self.root / name).read_bytes() == data, name


@contextlib.contextmanager
def open_hub() -> Iterator[HubServer]:
    """The hub with the released repositories, for the enclosed test."""
    hub = HubServer()
    hub.publish(MODEL, model_files())
    hub.publish(TOOLKIT, toolkit_files())
    try:
        yield hub
    finally:
        hub.close()


def in_model(name: str) -> str:
    """A wanted file's name in its repository."""
    return name.removeprefix("parser/")


WITHOUT_NETWORK = """
import socket, sys
from pathlib import Path

def refuse(*arguments, **keywords):
    raise SystemExit("the network was asked")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
from fastfit_watch.bundles.provision import provide_bundle
from fastfit_watch.cli.progress_bar import DownloadReporter
print(provide_bundle(sys.argv[1], Path("Models"), DownloadReporter()))
assert "huggingface_hub" not in sys.modules
"""


def provide_without_network(box: HubFixture, name: str = NAME) -> str:
    """Make a bundle ready for the engine in a process that ends at the first look at the network."""
    command = [sys.executable, "-c", WITHOUT_NETWORK, str(name)]
    done = subprocess.run(command, cwd=box.home, env=box.environment({}), check=True, capture_output=True, text=True)
    return done.stdout.strip()
