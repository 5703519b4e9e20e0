"""What the machine gives: events, a clock, and somebody who starts the daemon."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import time
from itertools import islice
from pathlib import Path

from fastfit_watch.cli.doctor.finding import Finding, bad, good, poor
from fastfit_watch.cli.service_unit import UNIT
from fastfit_watch.config.settings import Config
from fastfit_watch.storage.spool import SpoolPaths

PROC = Path("/proc")
SYSTEMD = Path("/run/systemd/system")
_FEW_INSTANCES = 8
_AHEAD_S = 5.0
_OLDEST_S = 1_760_000_000.0  # autumn 2025: this program did not exist before
_STA_UNSYNC = 0x0040
_TIMEX_BYTES = 512
_STATUS_OFFSET = 5 * ctypes.sizeof(ctypes.c_long)
_CHECKED_ENTRIES = 1000
_ASK_S = 30.0
_KEYS = ("LoadState", "ActiveState", "UnitFileState", "NRestarts")


def examine_events(proc: Path = PROC) -> Finding:
    """Does inotify work, and how near is its limit?"""
    fix = "As root: sysctl -w fs.inotify.max_user_instances=512, and put it in /etc/sysctl.d/."
    try:
        limit = int((proc / "sys/fs/inotify/max_user_instances").read_text(encoding="ascii"))
        watches = int((proc / "sys/fs/inotify/max_user_watches").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return poor("inotify", "this kernel has none: uploads are found by timed scans.", "Nothing needs to be done.")
    library = ctypes.CDLL(None, use_errno=True)
    handle = library.inotify_init1(os.O_CLOEXEC)
    if handle < 0:
        return poor("inotify", f"no more can be had ({os.strerror(ctypes.get_errno())}): timed scans only.", fix)
    os.close(handle)
    used = _count_instances(proc)
    if limit - used < _FEW_INSTANCES or watches < _FEW_INSTANCES:
        return poor("inotify", f"{used} of {limit} instances are used, {watches} watches are allowed.", fix)
    return good("inotify", f"{used} of {limit} instances used, {watches} watches allowed")


def _count_instances(proc: Path) -> int:
    """inotify instances of this account, as far as its processes may be looked at."""
    used = 0
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == os.geteuid():
                used += sum(_is_instance(handle) for handle in (process / "fd").iterdir())
    return used


def _is_instance(handle: Path) -> bool:
    try:
        return str(handle.readlink()) == "anon_inode:inotify"
    except OSError:
        return False  # closed meanwhile


def examine_clock(inputs: Path, now_s: float) -> Finding:
    """Is the clock kept in time, and does it agree with that of the disk?"""
    fix = "Start a time service: 'timedatectl set-ntp true', or chrony."
    if now_s < _OLDEST_S:
        return bad("clock", f"it says {time.strftime('%Y-%m-%d', time.gmtime(now_s))}.", fix)
    ahead_s = _newest_s(inputs) - now_s
    if ahead_s > _AHEAD_S:
        message = f"files in {inputs} are dated {ahead_s:.0f} s ahead: this clock or that of the file server is wrong."
        return poor("clock", message, fix)
    synchronised = _is_synchronised()
    if synchronised is False:
        return poor("clock", "the kernel says that nothing keeps it in time.", fix)
    return good("clock", "kept in time" if synchronised else "plausible; the kernel does not say who keeps it in time")


def _newest_s(folder: Path) -> float:
    """The latest change of the folder and of what is in it; 0 if it cannot be looked at."""
    try:
        with os.scandir(folder) as entries:
            changes = [entry.stat(follow_symlinks=False).st_ctime for entry in islice(entries, _CHECKED_ENTRIES)]
        return max(folder.stat().st_ctime, *changes, 0.0)
    except OSError:
        return 0.0


def _is_synchronised() -> bool | None:
    """What adjtimex(2) says, which anyone may ask. None where it is not to be had."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    if state < 0:
        return None
    status = ctypes.c_int.from_buffer(timex, _STATUS_OFFSET).value
    return not status & _STA_UNSYNC


def examine_service(config: Config, systemd: Path = SYSTEMD) -> Finding:
    """Is a daemon at work on these folders, and does anyone start it again?"""
    pid = _holder(SpoolPaths(config.inputs).lock)
    if not systemd.is_dir() or shutil.which("systemctl") is None:
        if pid:
            return good("service", f"process {pid} is watching {config.inputs}; there is no systemd here")
        fix = "Put the line that 'fastfit-watch service --container' prints into the box's on-start script."
        return poor("service", "no daemon is running, and there is no systemd here.", fix)
    facts = _ask_systemd()
    active, at_boot = facts.get("ActiveState", "unknown"), facts.get("UnitFileState") == "enabled"
    if active == "failed":
        return bad("service", f"{UNIT} has failed.", f"journalctl -u {UNIT} says why; then: systemctl restart {UNIT}")
    if active in ("active", "activating", "reloading"):
        restarts = f", restarted {facts['NRestarts']} times" if facts.get("NRestarts", "0") != "0" else ""
        if not at_boot:
            return poor("service", f"{UNIT} is {active}, but not started at boot.", f"systemctl enable {UNIT}")
        return good("service", f"{UNIT} is {active}{restarts}")
    if pid:
        return good("service", f"process {pid} is watching {config.inputs}; {UNIT} is not used")
    if facts.get("LoadState") == "not-found":
        fix = f"fastfit-watch service > /etc/systemd/system/{UNIT}; systemctl enable --now {UNIT}"
        return poor("service", f"no daemon is running, and {UNIT} is not installed.", fix)
    return poor("service", f"{UNIT} is {active}.", f"systemctl enable --now {UNIT}")


def _ask_systemd() -> dict[str, str]:
    command = ["systemctl", "show", UNIT, f"--property={','.join(_KEYS)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _holder(lock: Path) -> str:
    """The id of the process that holds a spool's lock; empty if there is none, or it may not be looked at.

    To try the lock would be surer, and would refuse a daemon that starts in that moment.
    """
    try:
        inode = lock.stat().st_ino
        locks = [line.split() for line in (PROC / "locks").read_text(encoding="ascii").splitlines()]
    except OSError:
        return ""
    return next((row[4] for row in locks if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)), "")
