"""Recognises by their names the files that are no pictures: partial files of clients, litter, and control files."""

from __future__ import annotations

import re

CONTROL_NAMES = ("RETRY", "CANCEL")
"""Files by which people without a shell ask for something; they are no part of the upload."""
READY = "READY"
SUMS = "SHA256SUMS"

# Folders that file servers, operating systems and archivers make by themselves.
_SYSTEM_FOLDERS = frozenset(
    {
        "lost+found",
        "lost.dir",
        "@eadir",  # Synology
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "$recycle.bin",  # Windows
        "recycler",
        "recycled",
        "system volume information",
        "__macosx",  # macOS
        "network trash folder",
        "temporary items",
        "thevolumesettingsfolder",
    }
)
# Files that file managers leave. macOS' `Icon` ends in a carriage return, which SMB servers store as U+F00D.
_LITTER_FILES = frozenset(
    {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "icon\uf00d", ".localized"}
)
# AppleDouble files of macOS, lock files of Office, marks of downloaded files on Windows.
_LITTER_PATTERN = re.compile(r"\._.*|~\$.*|.*:zone\.identifier", re.DOTALL)

# What clients append to the name of a file until it is complete.
_PARTIAL_SUFFIXES = (
    ".filepart",  # WinSCP
    ".part",  # Firefox, ownCloud and Nextcloud, KDE, ncftp
    ".partial",  # rclone (with or without its random part before it), Internet Explorer
    ".crdownload",  # Chrome
    ".download",  # Safari
    ".opdownload",  # Opera
    ".tmp",  # Syncthing on Windows, Unison, many sync clients
    ".temp",
    ".uploading",
    ".incomplete",
    ".aria2",
    ".gstmp",  # gsutil
    ".drivedownload",  # Google Drive
    ".!sync",  # Resilio Sync
)
_PARTIAL_PATTERNS = (
    re.compile(r"~syncthing~.+", re.IGNORECASE),
    re.compile(r".+\.(jpe?g|png|webp|heic|avif|ya?ml)\.[0-9a-f]{8}", re.IGNORECASE),  # aws s3 cp
)
# Partial files with hidden names, and the name that each will have. rsync appends six random characters.
_HIDDEN_PARTIALS = (
    re.compile(r"\.(?P<name>.+\.[A-Za-z0-9]+)\.[A-Za-z0-9]{6}"),  # rsync
    re.compile(r"\.syncthing\.(?P<name>.+)\.tmp"),
    re.compile(r"\.(?P<name>.+)\.(?:filepart|part|partial|tmp|crdownload|uploading)"),
    re.compile(r"\.~?(?P<name>.+)\.~[0-9A-Za-z]+"),  # Nextcloud's desktop client
    re.compile(r"\.in\.(?P<name>.+?)\.?"),  # ProFTPD's HiddenStores
)
_PARTIAL_FOLDERS = frozenset({".~tmp~", ".rsync-partial"})  # rsync --delay-updates, --partial-dir


def control_name(name: str) -> str | None:
    """Return which of `CONTROL_NAMES` a file stands for, in any capitals and with `.txt` at its end, or None."""
    plain = _plain(name)
    return plain if plain in CONTROL_NAMES else None


def is_ready_mark(name: str) -> bool:
    """Does a file of this name say that the upload is complete?"""
    return _plain(name) == READY


def is_system_folder(name: str) -> bool:
    """Is this a folder that a file server or an operating system makes by itself?"""
    return name.casefold() in _SYSTEM_FOLDERS


def is_litter(name: str) -> bool:
    """Does a file or folder of this name come with every copy, without anybody's wish?"""
    folded = name.casefold()
    return folded in _SYSTEM_FOLDERS or folded in _LITTER_FILES or _LITTER_PATTERN.fullmatch(folded) is not None


def is_partial(name: str) -> bool:
    """Is this what a client calls a file, or rsync a folder, that it has not transferred to its end?"""
    if name in _PARTIAL_FOLDERS:
        return True
    return name.casefold().endswith(_PARTIAL_SUFFIXES) or any(each.fullmatch(name) for each in _PARTIAL_PATTERNS)


def hidden_target(name: str) -> str | None:
    """Return the name that a hidden partial file will have once it is complete; None if it is no such file."""
    matches = (pattern.fullmatch(name) for pattern in _HIDDEN_PARTIALS)
    return next((match["name"] for match in matches if match), None)


def _plain(name: str) -> str:
    return name.upper().removesuffix(".TXT")
