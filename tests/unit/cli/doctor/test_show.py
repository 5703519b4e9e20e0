"""`doctor`, each check against the fault it is there for: made real wherever that is possible."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pty
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.doctor_accounts import AS_ROOT, STRANGER, act_as, level_of, make_places, put_tool, words_of
from support.tiny_networks import write_bundle

from fastfit_watch.bundles.catalogue import KNOWN
from fastfit_watch.cli.doctor.finding import Level
from fastfit_watch.cli.doctor.gpu import examine_gpus
from fastfit_watch.cli.doctor.parsers import examine_parsers
from fastfit_watch.cli.doctor.system import examine_clock, examine_events, examine_service
from fastfit_watch.cli.doctor.weights import examine_weights
from fastfit_watch.cli.main import main
from fastfit_watch.config.settings import Config, ContentFilterSettings, EngineSettings, load_config
from fastfit_watch.storage.spool import Spool, SpoolPaths
from fastfit_watch.system.exit_codes import ExitCode

REAL = "fastfit-mr-1024"


# GPU, driver, torch


SMI = 'case "$1" in -L) {listing};; *) {query};; esac'


def _driver(
    folder: Path, monkeypatch: pytest.MonkeyPatch, memory_mib: int = 143771, gpus: int = 1, version: str = "580.95"
) -> None:
    rows = "; ".join(f"echo '{index}, NVIDIA H200, {version}, {memory_mib}'" for index in range(gpus))
    listing = "; ".join(f"echo 'GPU {index}: NVIDIA H200 (UUID: GPU-{index})'" for index in range(gpus))
    put_tool(folder, monkeypatch, "nvidia-smi", SMI.format(listing=listing, query=rows))


def _torch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, version: str = "2.13.0", cuda: str | None = "13.0", body: str = ""
) -> None:
    """A package that answers as torch would on some machine."""
    (folder / "torch.py").write_text(
        f"__version__ = {version!r}\nclass version:\n    cuda = {cuda!r}\n"
        "class zeros:\n    def __init__(self, *a, **k): pass\n    def add_(self, n): return self\n    item = add_\n"
        "zeros.item = lambda self: 1\n"
        "class cuda:\n    init = staticmethod(lambda: None)\n    device_count = staticmethod(lambda: 1)\n"
        "    get_arch_list = staticmethod(lambda: ['sm_80', 'sm_90'])\n"
        "    get_device_capability = staticmethod(lambda index: (9, 0))\n"
        f"{body}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_sound_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, monkeypatch)
    _torch(tmp_path, monkeypatch)
    findings = examine_gpus(Config())
    assert [finding.level for finding in findings] == [Level.OK] * 3, findings
    assert "NVIDIA H200; driver 580.95" in words_of(findings, "gpu")
    assert "CUDA 13.0" in words_of(findings, "torch")


def test_a_driver_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mismatch = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
    put_tool(tmp_path, monkeypatch, "nvidia-smi", mismatch)
    _torch(tmp_path, monkeypatch)
    findings = examine_gpus(Config())
    assert level_of(findings, "gpu") is Level.FAIL
    assert "version mismatch" in words_of(findings, "gpu")
    put_tool(tmp_path, monkeypatch, "nvidia-smi", "echo nonsense")
    assert level_of(examine_gpus(Config()), "gpu") is Level.FAIL


def test_a_gpu_that_is_asked_for_and_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _torch(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert level_of(examine_gpus(Config()), "gpu") is Level.WARN
    assert level_of(examine_gpus(Config(bundle="mini")), "gpu") is Level.OK
    for device in ("cuda:1", "cuda:x"):
        findings = examine_gpus(Config(engine=EngineSettings(devices=(device,))))
        assert level_of(findings, "gpu") is Level.FAIL
        assert device in words_of(findings, "gpu")
        assert level_of(findings, "torch") is Level.FAIL


@pytest.mark.parametrize(
    ("torch", "level", "words"),
    [
        ({"cuda": None}, Level.FAIL, "cannot use the GPU"),
        ({"body": "raise ImportError('libcudart.so.13: no such file')"}, Level.FAIL, "libcudart.so.13"),
        ({"body": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"}, Level.FAIL, "ended with -11"),
        (
            {"body": "def broken(): raise RuntimeError('driver too old')\ncuda.init = staticmethod(broken)"},
            Level.FAIL,
            "driver too old",
        ),
        ({"body": "cuda.device_count = staticmethod(lambda: 0)"}, Level.FAIL, "sees 0 GPUs"),
        ({"body": "cuda.get_device_capability = staticmethod(lambda index: (12, 0))"}, Level.FAIL, "sm_120"),
        ({"version": "2.4.1+cu121"}, Level.WARN, "2.11 to 2.13"),
    ],
)
def test_a_torch_that_does_not_fit(
    torch: dict[str, Any], level: Level, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _driver(tmp_path, monkeypatch)
    _torch(tmp_path, monkeypatch, **torch)
    findings = examine_gpus(Config())
    assert level_of(findings, "torch") is level
    assert words in words_of(findings, "torch")


@pytest.mark.parametrize(
    ("driver", "cuda", "words", "has_line"),
    [
        ("570.172.08", "13.0", "Driver 570.172.08 is too old: CUDA 13.0 needs 580 or newer.", True),
        ("470.82", "13.0", "Driver 470.82 is too old: CUDA 13.0 needs 580 or newer.", False),
        ("470.82", "12.6", "Driver 470.82 is too old: CUDA 12.6 needs 525 or newer.", False),
        ("580.95", "13.0", "Update the NVIDIA driver to one for CUDA 13.0 or newer", False),
    ],
)
def test_a_driver_that_is_too_old_for_torch(
    driver: str, cuda: str, words: str, has_line: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line for torch's older build is printed only where that build could run."""
    _driver(tmp_path, monkeypatch, version=driver)
    broken = "def broken(): raise RuntimeError('driver too old')\ncuda.init = staticmethod(broken)"
    _torch(tmp_path, monkeypatch, version="2.13.0+cu130", cuda=cuda, body=broken)
    findings = examine_gpus(Config())
    assert level_of(findings, "torch") is Level.FAIL
    assert words in words_of(findings, "torch")
    line = (
        "which we have not tried: pip install 'torch==2.13.0+cu126' --index-url https://download.pytorch.org/whl/cu126"
    )
    assert (line in words_of(findings, "torch")) is has_line


def test_little_graphics_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, monkeypatch, memory_mib=6144)
    _torch(tmp_path, monkeypatch)
    findings = examine_gpus(Config())
    assert level_of(findings, "vram") is Level.WARN
    assert "memory.start: offload" in words_of(findings, "vram")
    assert level_of(examine_gpus(Config.model_validate({"memory": {"start": "offload"}})), "vram") is Level.OK
    assert level_of(examine_gpus(Config(bundle="mini")), "vram") is Level.OK


def test_graphics_memory_against_what_the_settings_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, monkeypatch, memory_mib=12288)
    _torch(tmp_path, monkeypatch)
    profile = load_config(Path(__file__).parents[4] / "configs" / "rtx3060-12gb.yaml")
    findings = examine_gpus(profile)
    assert level_of(findings, "vram") is Level.OK
    assert "11.0 GiB allowed of 12.0 GiB" in words_of(findings, "vram")
    assert level_of(examine_gpus(Config(engine=EngineSettings(memory_bytes=4 * 2**30))), "vram") is Level.WARN
    _driver(tmp_path, monkeypatch, memory_mib=10240)
    findings = examine_gpus(profile)
    assert level_of(findings, "vram") is Level.WARN
    assert "meant for a larger card" in words_of(findings, "vram")


# Weights


@pytest.mark.parametrize("network", ["unet", "vae"])
def test_a_bundle_that_lacks_a_file_or_half_of_one(network: str, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    config = Config(bundle=str(folder))
    assert level_of(examine_weights(config), "weights") is Level.OK
    weights = folder / network / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:-1], whole[:4], b"", b"\xff" * 64):
        weights.write_bytes(part)
        findings = examine_weights(config)
        assert level_of(findings, "weights") is Level.FAIL
        assert f"{network}/diffusion_pytorch_model.safetensors" in words_of(findings, "weights")
    weights.unlink()
    assert "lacks" in words_of(examine_weights(config), "weights")


def test_the_released_bundle_needs_every_part(tmp_path: Path) -> None:
    config = Config(models=tmp_path)
    findings = examine_weights(config)
    assert level_of(findings, "weights") is Level.WARN
    assert "the first start fetches it" in words_of(findings, "weights")
    assert level_of(examine_weights(Config(bundle=str(tmp_path / REAL))), "weights") is Level.FAIL
    assert level_of(examine_weights(Config(models=tmp_path, bundle="own-1")), "weights") is Level.FAIL
    folder = tmp_path / REAL
    for part in KNOWN[REAL].parts:
        path = folder / part.repository.folder / part.patterns[0].replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"I." if path.suffix == ".pkl" else struct.pack("<Q", 2) + b"{}")
    assert level_of(examine_weights(config), "weights") is Level.OK
    (folder / "parser" / "yolox_l.onnx").unlink()
    assert level_of(examine_weights(config), "weights") is Level.WARN
    findings = examine_weights(Config(bundle=str(folder)))
    assert level_of(findings, "weights") is Level.FAIL
    assert "DWPose's detector (yolox_l.onnx)" in words_of(findings, "weights")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80" + b"\0" * 7)
    findings = examine_weights(config)
    assert level_of(findings, "weights") is Level.FAIL
    assert "diffusion_pytorch_model.safetensors" in words_of(findings, "weights")


def test_the_reminder_of_a_content_filter(tmp_path: Path) -> None:
    assert level_of(examine_weights(Config(models=tmp_path)), "filter") is Level.WARN
    chosen = ContentFilterSettings(model="some/filter", labels=("nsfw",))
    assert level_of(examine_weights(Config(models=tmp_path, content_filter=chosen)), "filter") is Level.OK
    assert level_of(examine_weights(Config(bundle="mini")), "filter") is Level.OK


# Parsers


def test_detectron2_is_missed_before_the_engine_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(engine=EngineSettings(densepose="detectron2"))
    finding = examine_parsers(config)
    assert finding.level is Level.FAIL
    assert "needs torchvision, detectron2, densepose" in finding.message
    assert "'detectron2-densepose @ git+https://" in finding.fix
    for name in ("torchvision", "detectron2", "densepose"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert examine_parsers(config).level is Level.OK
    assert examine_parsers(Config()).level is Level.OK


@pytest.mark.parametrize(
    ("body", "level", "words"),
    [
        ("get_available_providers = lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider']", Level.OK, "on the GPU"),
        ("get_available_providers = lambda: ['CPUExecutionProvider']", Level.FAIL, "offers CPUExecutionProvider only"),
        ("raise ImportError('libcudnn.so.9')", Level.FAIL, "libcudnn.so.9"),
    ],
)
def test_dwpose_on_a_gpu_wants_an_onnxruntime_for_it(
    body: str, level: Level, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text(f"{body}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = examine_parsers(Config(engine=EngineSettings(pose="gpu")))
    assert (finding.level, words in finding.message) == (level, True), finding
    assert examine_parsers(Config(bundle="mini", engine=EngineSettings(pose="gpu"))).level is Level.OK


# Events, clock, service


def _proc(folder: Path, instances: int, watches: int = 100_000) -> Path:
    limits = folder / "sys" / "fs" / "inotify"
    limits.mkdir(parents=True, exist_ok=True)
    (limits / "max_user_instances").write_text(f"{instances}\n")
    (limits / "max_user_watches").write_text(f"{watches}\n")
    return folder


def test_a_low_limit_of_events(tmp_path: Path) -> None:
    assert examine_events(_proc(tmp_path, 512)).level is Level.OK
    assert examine_events(_proc(tmp_path, 4)).level is Level.WARN
    assert examine_events(_proc(tmp_path, 512, watches=2)).level is Level.WARN
    assert examine_events(tmp_path / "nothing").level is Level.WARN


def test_the_instances_in_use_are_counted() -> None:
    library = ctypes.CDLL(None)
    before = int(examine_events().message.split()[0])
    handles = [library.inotify_init1(0) for _ in range(3)]
    try:
        assert int(examine_events().message.split()[0]) >= before + 3
    finally:
        for handle in handles:
            os.close(handle)


@AS_ROOT
def test_no_event_left_to_be_had() -> None:
    def exhaust() -> list[str]:
        library = ctypes.CDLL(None)
        for _ in range(100_000):
            if library.inotify_init1(0) < 0:
                break
        finding = examine_events()
        return [finding.level, finding.message]

    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 900:
        pytest.skip("the limit of this machine is above the number of open files")
    level, message = act_as(STRANGER, exhaust)
    assert level == Level.WARN
    assert "no more can be had" in message


def test_a_clock_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "spring").mkdir()
    assert examine_clock(tmp_path, time.time()).check == "clock"
    behind = examine_clock(tmp_path, time.time() - 3600)
    assert behind.level is Level.WARN
    assert "dated 3600 s ahead" in behind.message.replace("3599", "3600").replace("3601", "3600")
    assert examine_clock(tmp_path, 0.0).level is Level.FAIL
    assert examine_clock(tmp_path / "missing", time.time()).level is not Level.FAIL


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=0", Level.OK, "is active"),
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=7", Level.OK, "restarted 7 times"),
        (
            "LoadState=loaded\nActiveState=active\nUnitFileState=disabled\nNRestarts=0",
            Level.WARN,
            "not started at boot",
        ),
        ("LoadState=loaded\nActiveState=failed\nUnitFileState=enabled\nNRestarts=9", Level.FAIL, "journalctl"),
        ("LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\nNRestarts=0", Level.WARN, "enable --now"),
        ("LoadState=not-found\nActiveState=inactive\nUnitFileState=\nNRestarts=0", Level.WARN, "is not installed"),
    ],
)
def test_what_systemd_says(
    answer: str, level: Level, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tool(tmp_path, monkeypatch, "systemctl", f"cat <<END\n{answer}\nEND")
    finding = examine_service(make_places(tmp_path), systemd=tmp_path)
    assert finding.level is level
    assert words in f"{finding.message} {finding.fix}"


def test_a_daemon_without_systemd_is_seen_by_its_lock(tmp_path: Path) -> None:
    config = make_places(tmp_path)
    nowhere = tmp_path / "no-systemd"
    assert examine_service(config, systemd=nowhere).level is Level.WARN
    spool = Spool(SpoolPaths(config.inputs), config.limits)
    spool.lock()
    finding = examine_service(config, systemd=nowhere)
    assert finding.level is Level.OK
    assert f"process {os.getpid()} " in finding.message
    spool.unlock()
    assert examine_service(config, systemd=nowhere).level is Level.WARN


# The command


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a torch that loads at once."""
    _torch(tmp_path, monkeypatch, cuda=None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_exit_code_and_json(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--bundle", "mini", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert report["fit"] is True
    checks = [finding["check"] for finding in report["findings"]]
    assert checks[:2] == ["config", "gpu"]
    assert set(checks) >= {
        "torch",
        "inotify",
        "clock",
        "weights",
        "filter",
        "parsers",
        "inputs",
        "filesystem",
        "space",
        "service",
    }
    assert all(finding["fix"] for finding in report["findings"] if finding["level"] != "ok")
    assert main(["doctor", "--bundle", "no-such-bundle", "--json"]) == ExitCode.UNFIT
    assert json.loads(capsys.readouterr().out)["fit"] is False


def test_wrong_settings_are_a_finding_too(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (quick / "my.yaml").write_text("engin: {}\n")
    assert main(["doctor", "--config", "my.yaml"]) == ExitCode.UNFIT
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fail  config")
    assert "Did you mean 'engine'?" in lines[0]
    assert any(line.startswith(("ok    torch", "warn  torch")) for line in lines)
    assert main(["doctor", "--uploader", "nobody-at-all"]) == ExitCode.USAGE


def test_each_finding_is_one_line_without_colours_in_a_pipe(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--bundle", "evil\n\x1b[31mname"]) == ExitCode.UNFIT
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert all(line[:4].strip() in ("ok", "warn", "fail") for line in out.splitlines())


def test_colours_on_a_terminal(quick: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "fastfit_watch", "doctor", "--bundle", "mini"]
    with subprocess.Popen(command, stdout=theirs, env=environment, cwd=quick) as doctor:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
        assert doctor.wait(60) == ExitCode.OK
    os.close(ours)
    assert b"\x1b[32mok" in shown


def test_in_the_journal_each_finding_has_its_priority(quick: Path) -> None:
    with (quick / "journal").open("w") as stream:
        facts = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        command = [sys.executable, "-m", "fastfit_watch", "doctor", "--bundle", "no-such-bundle"]
        subprocess.run(command, stdout=stream, env=environment, cwd=quick, check=False, timeout=60)
    lines = (quick / "journal").read_text().splitlines()
    priorities = {"ok": "<6>", "warn": "<4>", "fail": "<3>"}
    assert all(line.startswith(priorities[line[3:7].strip()]) for line in lines)
    assert any(line.startswith("<3>fail  weights") for line in lines)


def test_doctor_itself_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'diffusers', 'numpy', 'PIL', 'loguru'}"
    program = f"import sys, fastfit_watch.cli.doctor.show; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
