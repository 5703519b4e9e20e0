"""The printed unit: what systemd itself says of it, odd paths, both kinds of machine, and the start line at work."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from fastfit_watch.cli.main import main
from fastfit_watch.cli.service_unit import (
    CONVENTIONAL,
    CONVENTIONAL_PER_DEVICE,
    Installation,
    inspect_installation,
    install_commands,
    write_start_line,
    write_unit,
)
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError

ROOT = Path(__file__).parents[3]
ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSED = 1.5
PATIENCE_S = 120.0
BOTH = pytest.mark.parametrize("installation", [CONVENTIONAL, CONVENTIONAL_PER_DEVICE], ids=["one", "per-device"])


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if ANALYZE is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)


def _write(installation: Installation, folder: Path) -> Path:
    """The unit as a file, with a program that exists: systemd looks."""
    path = folder / installation.unit
    path.write_text(write_unit(replace(installation, program=("/bin/true",))))
    return path


@BOTH
def test_the_shipped_units_are_what_service_prints(installation: Installation) -> None:
    assert (ROOT / "systemd" / installation.unit).read_text() == write_unit(installation)


@BOTH
@pytest.mark.parametrize("has_gpu", [True, False])
def test_systemd_has_nothing_to_say_against_it(installation: Installation, has_gpu: bool, tmp_path: Path) -> None:
    path = _write(replace(installation, has_gpu=has_gpu), tmp_path)
    done = _analyze("verify", "--man=no", str(path))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    path.write_text(path.read_text().replace("ProtectClock=yes", "ProtectClok=yes"))
    assert "ProtectClok" in _analyze("verify", "--man=no", str(path)).stderr, "the check must be able to fail"


@BOTH
@pytest.mark.parametrize("has_gpu", [True, False])
def test_it_is_hardened(installation: Installation, has_gpu: bool, tmp_path: Path) -> None:
    path = _write(replace(installation, has_gpu=has_gpu), tmp_path)
    limit = str(int(MOST_EXPOSED * 10))
    done = _analyze("security", "--offline=true", f"--threshold={limit}", "--no-pager", str(path))
    assert done.returncode == 0, done.stdout
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= MOST_EXPOSED


def test_the_gpu_stays_reachable_and_a_machine_without_one_shuts_out_every_device() -> None:
    with_gpu, without = write_unit(CONVENTIONAL), write_unit(replace(CONVENTIONAL, has_gpu=False))
    assert "\nDeviceAllow=char-nvidia* rw\n" in with_gpu
    assert "PrivateDevices=yes" not in with_gpu
    assert "\nPrivateDevices=yes\n" in without
    assert "nvidia" not in without
    # The switch that a JIT cannot live with appears in a comment only.
    assert not re.search(r"^MemoryDenyWriteExecute", with_gpu, re.MULTILINE)


def test_paths_with_spaces_percents_and_quotes_survive(tmp_path: Path) -> None:
    odd = tmp_path / 'a b%n"$c'
    bin_folder = tmp_path / "a b%n$c;"
    bin_folder.mkdir()
    shutil.copy("/bin/true", bin_folder / "true")
    installation = replace(
        CONVENTIONAL,
        program=(str(bin_folder / "true"),),
        options=("--inputs", str(odd / "in")),
        home=odd,
        inputs=odd / "in",
        outputs=odd / "out",
    )
    path = tmp_path / installation.unit
    path.write_text(write_unit(installation))
    done = _analyze("verify", "--man=no", str(path))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    escaped = str(odd).replace("%", "%%")
    assert f"WorkingDirectory={escaped}\n" in path.read_text()
    with pytest.raises(ConfigError, match="quotes"):
        write_unit(replace(installation, program=(str(odd / "true"),)))
    subprocess.run(["sh", "-n", "-c", write_start_line(installation)], check=True)


def test_homes_and_scratch_folders_are_not_hidden_from_the_daemon() -> None:
    at_home = write_unit(replace(CONVENTIONAL, home=Path("/home/anna/fit")))
    assert "\nProtectHome=read-only\n" in at_home
    assert "\nProtectHome=yes\n" in write_unit(CONVENTIONAL)
    assert "\nPrivateTmp=no\n" in write_unit(replace(CONVENTIONAL, inputs=Path("/tmp/in")))  # noqa: S108
    assert "# CAUTION: /root/in lies in /root" in write_unit(replace(CONVENTIONAL, inputs=Path("/root/in")))


def test_the_unit_may_write_and_read_what_the_settings_name(tmp_path: Path) -> None:
    settings = {
        "metrics": {"textfile": str(tmp_path / "collector" / "fastfit.prom")},
        "hook": {"command": ["/home/anna/tell", "{outputs}/x"]},
        "marks": {"c2pa_certificate": "keys/chain.pem", "c2pa_key": "keys/key.pem"},
        "webhook": {"url": "https://example.org", "secret_file": "/root/secret"},
    }
    names = {"user": "nobody", "group": "nogroup", "per_device": False, "home": Path("/srv/fit")}
    config = Config.model_validate(settings)
    plain = inspect_installation(Config(), (), **names)  # type: ignore[arg-type]
    named = inspect_installation(config, (), writable=[tmp_path / "sent"], **names)  # type: ignore[arg-type]
    unit = write_unit(named)
    usual = "/srv/fit/inputs /srv/fit/outputs /srv/fit/logs /srv/fit/Models"
    assert f"\nReadWritePaths={usual}\n" in write_unit(plain)
    assert f"\nReadWritePaths={usual} {tmp_path}/collector {tmp_path}/sent\n" in unit
    assert named.read == tuple(
        map(Path, ["/srv/fit/keys/chain.pem", "/srv/fit/keys/key.pem", "/root/secret", "/home/anna/tell"])
    )
    assert "# CAUTION: /root/secret lies in /root, which 'nobody' cannot enter." in unit
    assert "\nProtectHome=read-only\n" in unit, "the hook lies in a home"
    assert f"install -d -o nobody -g nogroup -m 0755 {tmp_path}/collector" in install_commands(named)
    (tmp_path / "collector").mkdir()
    assert f"setfacl -m u:nobody:rwx {tmp_path}/collector" in install_commands(named), "its owner keeps it"
    assert f" --writable {tmp_path}/sent > " in unit
    assert not [line for line in install_commands(plain) if "setfacl" in line or "0755" in line]


def test_instances_share_no_spool(tmp_path: Path) -> None:
    config = Config(inputs=Path("in"), outputs=Path("out"))
    survey_of = {"user": "nobody", "group": "nogroup", "per_device": True, "home": tmp_path}
    unit = write_unit(inspect_installation(config, (), **survey_of))  # type: ignore[arg-type]
    assert f"\nWorkingDirectory={tmp_path}/%i\n" in unit
    assert f"ReadWritePaths={tmp_path}/%i/in {tmp_path}/%i/out {tmp_path}/%i/logs {tmp_path}/Models\n" in unit
    assert f"--models {tmp_path}/Models\n" in unit
    assert "\nEnvironment=CUDA_VISIBLE_DEVICES=%i\n" in unit
    with pytest.raises(ConfigError, match="'inputs'"):
        inspect_installation(config.model_copy(update={"inputs": tmp_path / "in"}), (), **survey_of)  # type: ignore[arg-type]


def test_what_is_here_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, as nvidia-smi lists it, and device files that only one group may open."""
    _tool(tmp_path, monkeypatch, "nvidia-smi", "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'")
    dev = tmp_path / "dev"
    dev.mkdir()
    for name, mode in (("nvidia0", 0o660), ("nvidiactl", 0o666)):
        (dev / name).touch()
        (dev / name).chmod(mode)
    names = {"user": "nobody", "group": "surely-missing", "per_device": False, "home": tmp_path}
    found = inspect_installation(Config(), ("--bundle", "mini"), dev=dev, **names)  # type: ignore[arg-type]
    assert found.has_gpu
    assert "# Found here: GPU 0: NVIDIA H200.\n" in write_unit(found)
    assert (found.make_user, found.make_group) == (False, True)
    assert found.inputs == tmp_path / "inputs"
    if os.getgid() == 0:
        assert found.device_groups == ()
        os.chown(dev / "nvidia0", 0, pwd.getpwnam("nobody").pw_gid)
        grown = inspect_installation(Config(), (), dev=dev, **names)  # type: ignore[arg-type]
        assert f"\nSupplementaryGroups={grown.device_groups[0]}\n" in write_unit(grown)


def test_the_command_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("bundle: mini\ninputs: in\n")
    assert main(["service", "--config", "my.yaml", "--user", "daemon"]) == 0
    unit = capsys.readouterr().out
    assert f" run --config {tmp_path}/my.yaml\n" in unit
    assert f"ReadWritePaths={tmp_path}/in {tmp_path}/outputs" in unit
    assert "\nUser=daemon\n" in unit
    assert "useradd" not in unit
    path = tmp_path / "fastfit-watch.service"
    path.write_text(unit)
    done = _analyze("verify", "--man=no", str(path))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("more", [(), ("--per-device",)], ids=["one", "per-device"])
def test_the_printed_install_line_prints_the_same_unit(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell in another folder runs the line, with the unit's path replaced: the accounts must be the same."""
    home = tmp_path / "a b"
    home.mkdir()
    monkeypatch.chdir(home)
    assert main(["service", "--user", "daemon", "--group", "mail", "--bundle", "mini", *more]) == 0
    unit = capsys.readouterr().out
    line = next(line for line in unit.splitlines() if " > /etc/systemd/system/" in line).removeprefix("#").strip()
    target = tmp_path / "printed.service"
    command = re.sub(r"> /etc/systemd/system/\S+$", f"> {target}", line)
    subprocess.run(["sh", "-c", command], cwd="/", timeout=PATIENCE_S, check=True)
    assert target.read_text() == unit
    assert "\nUser=daemon\nGroup=mail\n" in unit


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders to another account")
def test_the_install_commands_make_folders_that_fit(tmp_path: Path) -> None:
    """The lines for folders are run as they are printed; accounts that exist are not made again."""
    installation = inspect_installation(
        Config(), ("--bundle", "mini"), user="nobody", group="nogroup", per_device=False, home=tmp_path / "a b"
    )
    lines = install_commands(installation)
    assert not any(line.startswith(("useradd", "groupadd")) for line in lines)
    for line in lines:
        if line.startswith("install"):
            subprocess.run(["sh", "-c", line], check=True)
    facts = {name: (tmp_path / "a b" / name).stat() for name in ("inputs", "outputs", "logs", "Models")}
    modes = {name: stat.S_IMODE(fact.st_mode) for name, fact in facts.items()}
    assert modes == {"inputs": 0o2770, "outputs": 0o2750, "logs": 0o700, "Models": 0o700}
    assert {fact.st_uid for fact in facts.values()} == {pwd.getpwnam("nobody").pw_uid}


def test_the_start_line_starts_restarts_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that fails twice, then lives until it is told to stop."""
    program = _tool(
        tmp_path,
        monkeypatch,
        "watch it",
        f"echo \"$@\" >> '{tmp_path}/calls'; [ $(wc -l < '{tmp_path}/calls') -lt 3 ] && exit 1\n"
        f"mkdir -p '{tmp_path}/inputs/.spool'; echo $$ > '{tmp_path}/inputs/.spool/lock'\n"
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    )
    installation = inspect_installation(
        Config(), ("--bundle", "mini"), user="nobody", group="nogroup", per_device=False, home=tmp_path
    )
    text = write_start_line(replace(installation, program=(str(program),))).replace("sleep 10", "sleep 0.1")
    started = subprocess.run(["sh", "-c", text], timeout=PATIENCE_S, check=True)
    assert started.returncode == 0
    lock = tmp_path / "inputs" / ".spool" / "lock"
    _wait(lambda: lock.exists() and lock.read_text().strip())
    assert (tmp_path / "calls").read_text().splitlines() == ["run --bundle mini --quiet"] * 3
    daemon = psutil.Process(int(lock.read_text()))
    loop = daemon.parent()
    assert os.getsid(daemon.pid) != os.getsid(0), "it must outlive the script that starts it"
    stop = next(line for line in text.splitlines() if line.startswith("# stop"))
    subprocess.run(["sh", "-c", stop.split(":", 1)[1]], check=True)
    _wait(lambda: not daemon.is_running() and not loop.is_running())


@pytest.mark.parametrize("code", [0, 2])
def test_the_start_line_does_not_insist(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _tool(tmp_path, monkeypatch, "quits", f"echo x >> {tmp_path}/calls; exit {code}")
    installation = inspect_installation(Config(), (), user="nobody", group="nogroup", per_device=False, home=tmp_path)
    text = write_start_line(replace(installation, program=(str(program),))).replace("sleep 10", "sleep 0.1")
    subprocess.run(
        ["sh", "-c", text.replace("</dev/null >>", "</dev/null >").replace("2>&1 &", "2>&1")], timeout=PATIENCE_S
    )
    time.sleep(0.5)
    assert (tmp_path / "calls").read_text() == "x\n"


def _tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> Path:
    """A command of that name, first on the PATH."""
    tool = folder / "tools" / name
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tool


def _wait(condition: object) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
