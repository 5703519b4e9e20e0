"""A real OpenSSH server on loopback for the length of a test, and the command lines of its clients."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LoopbackSsh:
    """Command lines up to their operands. `ssh` is what rsync takes for its -e."""

    scp: list[str]
    sftp: list[str]
    ssh: list[str]

    @property
    def host(self) -> str:
        """User and host, as every client takes them."""
        return f"{getpass.getuser()}@127.0.0.1"

    def target(self, path: Path) -> str:
        """A path on the server, as scp and rsync take it."""
        return f"{self.host}:{path}"


@contextmanager
def serve_ssh(folder: Path) -> Iterator[LoopbackSsh]:
    """Start a server with keys of its own in `folder`; end it afterwards."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert server, "these tests need an OpenSSH server: install the package openssh-server"
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {folder / "host"}
        AuthorizedKeysFile {folder / "authorized"}
        PidFile none
        StrictModes no
        UsePAM no
        PermitRootLogin yes
        PasswordAuthentication no
        Subsystem sftp internal-sftp
    """
    (folder / "sshd.conf").write_text(settings, encoding="ascii")
    sshd = subprocess.Popen([server, "-D", "-f", str(folder / "sshd.conf"), "-E", str(folder / "sshd.log")])
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        said = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={folder / 'known'}", "LogLevel=ERROR", "BatchMode=yes")
        options = ["-i", str(folder / "user"), *(part for option in said for part in ("-o", option))]
        yield LoopbackSsh(
            scp=["scp", "-q", "-P", str(port), *options],
            sftp=["sftp", "-q", "-P", str(port), *options],
            ssh=["ssh", "-p", str(port), *options],
        )
    finally:
        sshd.terminate()
        sshd.wait()
