"""The account of docs/running.md that can only upload: real sshd, real chroot, and a daemon under a third account."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from unit.intake.test_claim import make_upload, take

from fastfit_watch.cli.doctor.access import Account, find_account
from fastfit_watch.cli.doctor.finding import Level
from fastfit_watch.cli.doctor.folders import examine_folders
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.job import Status
from fastfit_watch.storage.spool import SpoolPaths

PAGE = (Path(__file__).parents[2] / "docs" / "running.md").read_text(encoding="utf-8")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
UPLOADER = "games"  # an account that every Debian has, with no shell and no password
GROUP = next((entry.pw_gid for entry in pwd.getpwall() if entry.pw_name == UPLOADER), None)
DAEMON = Account("fastfit", 54322, (GROUP or 0,))
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may serve other accounts"),
    pytest.mark.skipif(SSHD is None, reason="OpenSSH's server is not installed"),
    pytest.mark.skipif(GROUP is None, reason="there is no account 'games' here"),
]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that belongs to root, like everything above it: sshd insists. `inputs/` and `outputs/` as installed."""
    home = Path(tempfile.mkdtemp(prefix="fastfit-", dir="/srv"))
    home.chmod(0o755)
    for name, mode in (("inputs", 0o2770), ("outputs", 0o2750), ("logs", 0o700)):
        (home / name).mkdir()
        os.chown(home / name, DAEMON.uid, DAEMON.gids[0])
        (home / name).chmod(mode)
    yield home
    shutil.rmtree(home)


@pytest.fixture
def scp(home: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The page's own settings, for this account and this folder; the start of a command line for its client."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (home / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    (home / "authorized").chmod(0o644)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (block,) = re.findall(r"```sshd_config\n(.*?)```", PAGE, re.DOTALL)
    block = block.replace("Match Group fastfit-upload", f"Match User {UPLOADER}").replace("/srv/fastfit", str(home))
    (tmp_path / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {home}/authorized\nPidFile none\n"
        f"UsePAM no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n{block}"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = subprocess.Popen([str(SSHD), "-D", "-f", str(tmp_path / "sshd.conf"), "-E", str(tmp_path / "sshd.log")])
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={tmp_path}/known", "LogLevel=ERROR", "BatchMode=yes"]
    yield ["scp", "-q", "-P", str(port), "-i", f"{tmp_path}/user", *(p for o in options for p in ("-o", o))]
    sshd.terminate()
    sshd.wait()


@pytest.mark.parametrize(("mode", "stays"), [(0o755, True), (0o775, False), (0o700, True)])
def test_uploads_are_taken_and_results_fetched(
    mode: int, stays: bool, home: Path, tmp_path: Path, scp: list[str]
) -> None:
    """Whatever the modes at the sender; what the group may write is moved, the rest is copied and stays."""
    spring = make_upload(tmp_path)
    spring.chmod(mode)
    assert subprocess.run([*scp, "-r", str(spring), f"{UPLOADER}@127.0.0.1:inputs/"], check=False).returncode == 0
    child = os.fork()
    if child == 0:
        os.umask(0o007)
        os.setgroups(DAEMON.gids)
        os.setgid(DAEMON.gids[0])
        os.setuid(DAEMON.uid)
        try:
            os._exit(0 if take(home / "inputs").status is Status.QUEUED else 4)
        except PermissionError:
            os._exit(5)
    taken = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    uploaded = (home / "inputs" / "spring").stat()
    if mode == 0o700:
        assert taken == 5, "what its sender keeps private cannot be read"
        return
    assert taken == 0
    assert bool(list((home / "inputs" / "spring").iterdir())) is stays
    assert uploaded.st_gid == DAEMON.gids[0]
    (home / "outputs" / "spring").mkdir()
    (home / "outputs" / "spring" / "status.txt").write_text("done")
    (home / "outputs" / "spring" / "status.txt").chmod(0o640)
    os.chown(home / "outputs" / "spring" / "status.txt", DAEMON.uid, DAEMON.gids[0])
    fetched = subprocess.run([*scp, f"{UPLOADER}@127.0.0.1:outputs/spring/status.txt", str(tmp_path)], check=False)
    assert fetched.returncode == 0
    assert (tmp_path / "status.txt").read_text() == "done"


def test_doctor_foresees_it(home: Path) -> None:
    config = Config(inputs=home / "inputs", outputs=home / "outputs", logs=home / "logs")
    SpoolPaths(config.inputs).root.mkdir(mode=0o700)
    os.chown(SpoolPaths(config.inputs).root, DAEMON.uid, DAEMON.gids[0])
    levels = {finding.check: finding.level for finding in examine_folders(config, find_account(UPLOADER))}
    assert (levels["upload"], levels["fetch"]) == (Level.OK, Level.OK)
    (home / "inputs").chmod(0o700)
    levels = {finding.check: finding.level for finding in examine_folders(config, find_account(UPLOADER))}
    assert levels["upload"] is Level.FAIL


def test_the_account_can_do_nothing_else(home: Path, scp: list[str]) -> None:
    (home / "logs" / "secret").write_text("x")
    ssh = ["ssh", "-p", *scp[3:]]
    command = subprocess.run([*ssh, f"{UPLOADER}@127.0.0.1", "id"], capture_output=True, timeout=30, check=False)
    assert b"uid=" not in command.stdout
    for path in ("logs/secret", "/etc/passwd"):
        assert subprocess.run([*scp, f"{UPLOADER}@127.0.0.1:{path}", "/dev/null"], check=False).returncode != 0
