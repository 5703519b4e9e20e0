"""Tells which kind of filesystem a path is on."""

from __future__ import annotations

import re
from pathlib import Path

# On these, changes made by another machine raise no events here.
REMOTE_FILESYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "virtiofs", "vboxsf")
)


def filesystem_kind(path: Path) -> str:
    """Return the name of the filesystem that holds `path`, as in /proc/self/mountinfo: "ext4", "nfs4", "fuse.sshfs".

    Empty where the kernel does not say. Raises OSError if `path` does not exist.
    """
    wanted = path.resolve(strict=True)
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    kind, longest = "", -1
    for line in lines:
        mounted, _, kinds = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mounted.split(" ")[4]))
        # Of two mounts on one point, the later line is the one that is seen.
        if wanted.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = kinds.split(" ")[0], len(point.parts)
    return kind
