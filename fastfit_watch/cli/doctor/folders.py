"""The folders: can the daemon use them, can people upload and fetch, is there room, and what disk is it?"""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator
from pathlib import Path

from fastfit_watch.cli.doctor.access import (
    ENTER,
    READ,
    WRITE,
    Account,
    account_name,
    find_account,
    find_obstacle,
    present_account,
    rights_of_new_folder,
)
from fastfit_watch.cli.doctor.finding import Finding, bad, good, poor
from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError, StorageError
from fastfit_watch.domain.loose_files import LooseFiles
from fastfit_watch.intake.scan import scan
from fastfit_watch.storage.spool import SpoolPaths
from fastfit_watch.system.filesystem import REMOTE_FILESYSTEMS, filesystem_kind

_USE = READ | WRITE | ENTER
_STRICT_UMASK = 0o027
_GROUPED_UMASK = 0o002
_FEW_INODES = 10_000
_FLEETING = {"tmpfs": "in memory", "ramfs": "in memory", "overlay": "in the container"}
_COARSE = frozenset({"vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk"})


def examine_folders(config: Config, uploader: Account | None) -> list[Finding]:
    """Every folder for the daemon, then for somebody who uploads, then the disks."""
    daemon = _daemon_account(config)
    paths = {"inputs": config.inputs, "outputs": config.outputs, "logs": config.logs}
    findings = [_judge_use(name, path, daemon) for name, path in paths.items()]
    if all(path.is_dir() for path in (config.inputs, config.outputs)):
        findings += _judge_uploader(config, daemon, uploader) if uploader else [_judge_sharing(config.inputs)]
    elif uploader:
        fix = "Make them as 'fastfit-watch service' says, so that a group may use them."
        findings.append(poor("upload", f"{config.inputs} and {config.outputs} are not there yet.", fix))
    if config.inputs.is_dir():
        findings += _judge_entries(config.inputs)
    findings.append(_judge_filesystem(config.inputs))
    return [*findings, *_judge_space(config)]


def _daemon_account(config: Config) -> Account:
    """Whom the spool belongs to, since that is who the daemon is; without a spool, whoever asks."""
    here = present_account()
    try:
        owner = SpoolPaths(config.inputs).root.stat().st_uid
    except OSError:
        return here
    if owner == here.uid:
        return here
    name, group = account_name(owner), SpoolPaths(config.inputs).root.stat().st_gid
    try:
        return Account(name, owner, (group, *find_account(name).gids))
    except ConfigError:
        return Account(name, owner, (group,))


def _judge_use(name: str, path: Path, daemon: Account) -> Finding:
    """May the daemon read, write and enter it, or make it?"""
    present = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not present.is_dir():
        return bad(name, f"{present} is no folder.", "Move it away, or choose another folder in the settings.")
    obstacle = find_obstacle(daemon, present, _USE)
    if obstacle is not None:
        fix = f"As root: chown {daemon.name} {obstacle}" if obstacle == present.resolve() else f"chmod a+x {obstacle}"
        return bad(name, f"{path}: {daemon.name} may not use {obstacle}.", fix)
    if os.statvfs(present).f_flag & os.ST_RDONLY:
        return bad(name, f"{path} is on a disk that is mounted read-only.", "Mount it for writing.")
    return good(name, f"{path}, usable by {daemon.name}" + ("" if path.is_dir() else "; made at the first start"))


def _judge_uploader(config: Config, daemon: Account, uploader: Account) -> Iterator[Finding]:
    """What somebody can do who uploads under another account, and what becomes of it."""
    group = _group_name(config.inputs.stat().st_gid)
    join = f"As root: usermod -aG {group} {uploader.name}; chmod g+rwxs {config.inputs}"
    if (obstacle := find_obstacle(uploader, config.inputs, WRITE | ENTER)) is not None:
        yield bad("upload", f"{uploader.name} may not upload into {config.inputs}: stopped at {obstacle}.", join)
    else:
        yield _judge_new_folder(config.inputs, daemon, uploader, group)
    if (obstacle := find_obstacle(uploader, config.outputs, READ | ENTER)) is not None:
        fix = f"As root: chgrp {group} {config.outputs}; chmod g+rxs {config.outputs}"
        yield bad("fetch", f"{uploader.name} may not fetch from {config.outputs}: stopped at {obstacle}.", fix)
    else:
        yield good("fetch", f"{uploader.name} may read {config.outputs}")


def _judge_new_folder(inputs: Path, daemon: Account, uploader: Account, group: str) -> Finding:
    """What the daemon may do with a folder that is yet to be uploaded."""
    strict = rights_of_new_folder(inputs, uploader, _STRICT_UMASK)
    grouped = rights_of_new_folder(inputs, uploader, _GROUPED_UMASK)
    if not strict.allow(daemon, READ | ENTER):
        fix = f"As root: chgrp {group} {inputs}; chmod g+s {inputs}; {daemon.name} must be a member of {group}."
        message = f"a folder that {uploader.name} uploads with a strict umask (027) cannot be read by {daemon.name}."
        return poor("upload", message, fix)
    how = "moved" if grouped.allow(daemon, _USE) else "copied, and stay where they are"
    return good("upload", f"{uploader.name} may upload into {inputs}; folders the group may write are {how}")


def _judge_sharing(inputs: Path) -> Finding:
    """Nobody was named: say who could upload, going by the group."""
    facts = inputs.stat()
    if facts.st_mode & 0o020:
        members = f"members of {_group_name(facts.st_gid)}"
        return good("upload", f"{inputs} takes uploads of {members} (--uploader NAME checks one account)")
    message = f"{inputs} takes uploads of {account_name(facts.st_uid)} only."
    return poor("upload", message, f"If others upload: chgrp GROUP {inputs}; chmod 2770 {inputs}; try --uploader NAME.")


def _judge_entries(inputs: Path) -> Iterator[Finding]:
    """What lies in `inputs/` and is no upload."""
    try:
        found = scan(inputs)
    except StorageError:
        return  # whether it can be used is judged by `_judge_use`
    loose = LooseFiles.of(found.loose)
    if loose.count:
        yield poor("loose files", loose.message, loose.fix)
    if found.system:
        yield good("system", f"ignored in {inputs}, as a file server or system made them: {', '.join(found.system)}")


def _judge_filesystem(inputs: Path) -> Finding:
    present = next(folder for folder in (inputs.absolute(), *inputs.absolute().parents) if folder.exists())
    kind = filesystem_kind(present)
    if kind in REMOTE_FILESYSTEMS or kind.startswith("fuse."):
        message = f"{inputs} is on {kind}: changes made elsewhere raise no events, so it is scanned by time."
        return poor("filesystem", message, "Put inputs/ on a local disk, if uploads should be seen at once.")
    if kind in _COARSE:
        message = f"{inputs} is on {kind}, which keeps no owners and no exact times."
        return poor("filesystem", message, "Use a Linux filesystem such as ext4 or xfs.")
    if kind in _FLEETING:
        message = f"{inputs} is {_FLEETING[kind]} ({kind}): uploads and results end with it."
        return poor("filesystem", message, "Put inputs/ and outputs/ on a disk or a mounted volume.")
    return good("filesystem", f"{inputs} is on {kind or 'a kind of disk that the kernel does not name'}")


def _judge_space(config: Config) -> Iterator[Finding]:
    """Free space, once for each disk."""
    seen: set[int] = set()
    for path in (config.inputs, config.outputs, config.logs, config.models):
        present = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        if (device := present.stat().st_dev) in seen:
            continue
        seen.add(device)
        disk = os.statvfs(present)
        free_bytes, least = disk.f_bavail * disk.f_frsize, config.limits.min_free_bytes
        what = f"{free_bytes / 1e9:.1f} GB free for {path}"
        if free_bytes < least:
            yield bad("space", f"{what}: the queue stands still below {least / 1e9:.1f} GB.", "Free some space.")
        elif free_bytes < least + config.limits.job_bytes:
            yield poor("space", f"{what}: the largest upload allowed would not fit.", "Free some space.")
        elif disk.f_files and disk.f_favail < _FEW_INODES:
            yield poor("space", f"{what}, but only {disk.f_favail} files more (inodes).", "Remove small files.")
        else:
            yield good("space", what)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
