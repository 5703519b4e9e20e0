"""`doctor` on folders: what it says of rights against what the kernel grants, and disks with real faults."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.doctor_accounts import ANNA, AS_ROOT, DAEMON, SHARED_GID, STRANGER, act_as, level_of, make_places, words_of

from fastfit_watch.cli.doctor.access import (
    ENTER,
    READ,
    WRITE,
    find_account,
    find_obstacle,
    present_account,
    rights_of,
    rights_of_new_folder,
)
from fastfit_watch.cli.doctor.finding import Level
from fastfit_watch.cli.doctor.folders import examine_folders
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.storage.spool import SpoolPaths


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="doctor-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))


NOBODY = 0xFFFFFFFF
ACLS = {
    "none": None,
    "named user": _acl((1, 7, NOBODY), (2, 5, ANNA.uid), (4, 0, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)),
    "masked": _acl((1, 7, NOBODY), (2, 7, ANNA.uid), (4, 7, NOBODY), (16, 1, NOBODY), (32, 7, NOBODY)),
    "named group": _acl((1, 7, NOBODY), (4, 4, NOBODY), (8, 7, SHARED_GID), (16, 7, NOBODY), (32, 0, NOBODY)),
    "denied group": _acl((1, 7, NOBODY), (4, 5, NOBODY), (8, 0, SHARED_GID), (16, 7, NOBODY), (32, 7, NOBODY)),
    "plain": _acl((1, 7, NOBODY), (4, 5, NOBODY), (32, 1, NOBODY)),
}


def _set_acl(path: Path, kind: str, acl: bytes) -> None:
    try:
        os.setxattr(path, f"system.posix_acl_{kind}", acl)
    except OSError as error:
        pytest.skip(f"no ACLs on this disk: {error.strerror}")


@AS_ROOT
@pytest.mark.parametrize("acl", ACLS)
def test_rights_are_told_as_the_kernel_grants_them(acl: str, open_folder: Path) -> None:
    modes = (0o000, 0o700, 0o070, 0o007, 0o750, 0o770, 0o755, 0o705) if acl == "none" else (0o700,)
    folders = []
    for number, (mode, uid, gid) in enumerate(
        itertools.product(modes, (ANNA.uid, DAEMON.uid), (ANNA.uid, SHARED_GID, STRANGER.uid))
    ):
        folder = open_folder / str(number)
        folder.mkdir()
        os.chown(folder, uid, gid)
        folder.chmod(mode)
        if (entries := ACLS[acl]) is not None:
            _set_acl(folder, "access", entries)
        folders.append(folder)
    asked = [(folder, wanted) for folder in folders for wanted in range(1, 8)]
    seen: set[bool] = set()
    for account in (ANNA, DAEMON, STRANGER):
        granted = act_as(account, lambda: [os.access(folder, wanted) for folder, wanted in asked])
        told = [rights_of(folder).allow(account, wanted) for folder, wanted in asked]
        assert told == granted, account.name
        seen |= set(told)
    assert seen == {True, False}


@AS_ROOT
@pytest.mark.parametrize("acl", ACLS)
@pytest.mark.parametrize("setgid", [False, True])
def test_a_new_folder_is_told_as_the_kernel_makes_it(acl: str, setgid: bool, open_folder: Path) -> None:
    inputs = open_folder / "inputs"
    inputs.mkdir()
    os.chown(inputs, DAEMON.uid, SHARED_GID)
    inputs.chmod(0o2777 if setgid else 0o777)
    if (entries := ACLS[acl]) is not None:
        _set_acl(inputs, "default", entries)
    kinds = list(itertools.product((0o002, 0o022, 0o027, 0o077), (0o777, 0o755, 0o700)))

    def make() -> bool:
        for umask, asked in kinds:
            os.umask(umask)
            (inputs / f"{umask:o}-{asked:o}").mkdir(asked)
        return True

    assert act_as(ANNA, make)
    cases = [(umask, asked, wanted) for umask, asked in kinds for wanted in range(1, 8)]
    for account in (ANNA, DAEMON, STRANGER):
        granted = act_as(
            account, lambda: [os.access(inputs / f"{umask:o}-{asked:o}", want) for umask, asked, want in cases]
        )
        told = [rights_of_new_folder(inputs, ANNA, umask, asked).allow(account, want) for umask, asked, want in cases]
        assert told == granted, account.name


@AS_ROOT
def test_an_obstacle_on_the_way_is_named(open_folder: Path) -> None:
    closed = open_folder / "closed"
    (closed / "inputs").mkdir(parents=True)
    (closed / "inputs").chmod(0o777)
    closed.chmod(0o700)
    assert find_obstacle(ANNA, closed / "inputs", WRITE) == closed
    closed.chmod(0o711)
    assert find_obstacle(ANNA, closed / "inputs", READ | WRITE | ENTER) is None


def test_accounts_have_names(tmp_path: Path) -> None:
    assert find_account("root").uid == 0
    assert present_account().uid == os.geteuid()
    with pytest.raises(ConfigError, match="no account 'nobody-at-all'"):
        find_account("nobody-at-all")


# Folders


@AS_ROOT
def test_a_folder_that_the_daemon_may_not_use(open_folder: Path) -> None:
    config = make_places(open_folder)
    for name in ("inputs", "outputs", "logs"):
        for folder in open_folder.iterdir():
            os.chown(folder, DAEMON.uid, DAEMON.uid)
        assert act_as(DAEMON, lambda: [finding.level for finding in examine_folders(config, None)][:3]) == ["ok"] * 3
        (open_folder / name).chmod(0o555)
        found = act_as(DAEMON, lambda: [(f.check, f.level, f.fix) for f in examine_folders(config, None)])
        assert [check for check, level, _ in found if level == "fail"] == [name]
        assert next(fix for check, _, fix in found if check == name).startswith("As root: chown")
        (open_folder / name).chmod(0o755)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = make_places(tmp_path, outputs=tmp_path / "file" / "out")
    assert level_of(examine_folders(config, None), "outputs") is Level.FAIL


@AS_ROOT
def test_the_uploaders_group_and_setgid(open_folder: Path) -> None:
    """The four steps of a folder from useless to right, each with what the daemon then can do with an upload."""
    config = make_places(open_folder)
    SpoolPaths(config.inputs).root.mkdir(mode=0o700)
    for folder in (config.inputs, config.outputs, SpoolPaths(config.inputs).root):
        os.chown(folder, DAEMON.uid, DAEMON.uid)
    os.chown(SpoolPaths(config.inputs).root, DAEMON.uid, SHARED_GID)  # the daemon is a member: its spool says so
    findings = examine_folders(config, ANNA)
    assert (level_of(findings, "upload"), level_of(findings, "fetch")) == (Level.FAIL, Level.OK)
    assert "stopped at" in words_of(findings, "upload")
    os.chown(config.inputs, DAEMON.uid, SHARED_GID)
    config.inputs.chmod(0o770)
    assert level_of(examine_folders(config, ANNA), "upload") is Level.WARN, (
        "a strict umask hides uploads without setgid"
    )
    config.inputs.chmod(0o2770)
    findings = examine_folders(config, ANNA)
    assert level_of(findings, "upload") is Level.OK
    assert "may write are moved" in words_of(findings, "upload")
    assert level_of(examine_folders(config, STRANGER), "upload") is Level.FAIL
    config.outputs.chmod(0o700)
    assert level_of(examine_folders(config, ANNA), "fetch") is Level.FAIL


def test_folders_for_one_account_only_are_named(tmp_path: Path) -> None:
    config = make_places(tmp_path)
    config.inputs.chmod(0o755)
    assert level_of(examine_folders(config, None), "upload") is Level.WARN
    config.inputs.chmod(0o2775)
    assert level_of(examine_folders(config, None), "upload") is Level.OK
    later = Config(inputs=tmp_path / "later", outputs=tmp_path / "out")
    assert level_of(examine_folders(later, present_account()), "upload") is Level.WARN


@contextlib.contextmanager
def _mounted(point: Path, options: str) -> Iterator[None]:
    point.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(point)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("only root may mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_small_disk_in_memory(tmp_path: Path) -> None:
    with _mounted(tmp_path / "disk", "size=1m"):
        findings = examine_folders(make_places(tmp_path / "disk"), None)
        assert level_of(findings, "space") is Level.FAIL
        assert level_of(findings, "filesystem") is Level.WARN
        assert "tmpfs" in words_of(findings, "filesystem")
        roomy = Limits(min_free_bytes=0, job_bytes=1)
        assert level_of(examine_folders(make_places(tmp_path / "disk", limits=roomy), None), "space") is Level.OK
        narrow = Limits(min_free_bytes=0, job_bytes=10**7)
        assert level_of(examine_folders(make_places(tmp_path / "disk", limits=narrow), None), "space") is Level.WARN
    with _mounted(tmp_path / "disk", "size=64m,nr_inodes=100"):
        findings = examine_folders(make_places(tmp_path / "disk", limits=roomy), None)
        assert "inodes" in words_of(findings, "space")


@pytest.mark.parametrize(
    ("kind", "level", "words"),
    [
        ("ext4", Level.OK, "is on ext4"),
        ("", Level.OK, "does not name"),
        ("nfs4", Level.WARN, "scanned by time"),
        ("fuse.sshfs", Level.WARN, "scanned by time"),
        ("vfat", Level.WARN, "no owners"),
        ("overlay", Level.WARN, "in the container"),
    ],
)
def test_kinds_of_disks(kind: str, level: Level, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's answer is played: a machine for tests has no server to mount."""
    monkeypatch.setattr("fastfit_watch.cli.doctor.folders.filesystem_kind", lambda path: kind)
    findings = examine_folders(make_places(tmp_path), None)
    assert level_of(findings, "filesystem") is level
    assert words in words_of(findings, "filesystem")


def test_a_disk_that_may_only_be_read(tmp_path: Path) -> None:
    with _mounted(tmp_path / "disk", "size=1m"):
        config = make_places(tmp_path / "disk")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        findings = examine_folders(config, None)
        assert level_of(findings, "inputs") is Level.FAIL
        assert "read-only" in words_of(findings, "inputs")
