"""Names that clients and systems give to files, by kind."""

from __future__ import annotations

import pytest

from fastfit_watch.intake.file_names import control_name, hidden_target, is_litter, is_partial, is_ready_mark

PARTIAL = {
    "WinSCP": "ben.jpg.filepart",
    "Firefox": "ben.jpg.part",
    "Nextcloud": "ben.jpg.ocTransferId1234567890.part",
    "rclone": "ben.jpg.a1b2c3d4.partial",
    "rclone before 1.63": "ben.jpg.partial",
    "Chrome": "ben.jpg.crdownload",
    "Chrome before the name is known": "Unconfirmed 12345.crdownload",
    "Safari": "ben.jpg.download",
    "Opera": "ben.jpg.opdownload",
    "Syncthing on Windows": "~syncthing~ben.jpg.tmp",
    "many": "ben.jpg.tmp",
    "capitals": "BEN.JPG.PART",
    "gsutil": "ben.jpg_.gstmp",
    "aria2": "ben.jpg.aria2",
    "aws s3 cp": "ben.jpg.6eB2cA41",
    "Resilio": "ben.jpg.!sync",
    "rsync --delay-updates": ".~tmp~",
    "rsync --partial-dir": ".rsync-partial",
}
HIDDEN_PARTIAL = {
    "rsync": ".ben.jpg.Ab3xYz",
    "Syncthing": ".syncthing.ben.jpg.tmp",
    "Nextcloud": ".ben.jpg.~1a2b3c4d",
    "ProFTPD": ".in.ben.jpg.",
    "hidden temporary files": ".ben.jpg.part",
}
LITTER = {
    "macOS": (".DS_Store", "._ben.jpg", "Icon\r", ".localized", "__MACOSX"),
    "macOS over SMB": ("Icon\uf00d",),
    "Windows": (
        "Thumbs.db",
        "desktop.ini",
        "Desktop.INI",
        "$RECYCLE.BIN",
        "System Volume Information",
        "~$outfit.docx",
    ),
    "Windows through WSL": ("ben.jpg:Zone.Identifier",),
    "file servers": ("@eaDir", "#recycle", "#snapshot", "@Recycle", "lost+found"),
}
PLAIN = ("ben.jpg", "partial.jpg", "ben.part.jpg", "Icon.png", "thumbs.jpg", "ben.jpg.2026", "outfit.yaml", "retry.jpg")


@pytest.mark.parametrize("client", PARTIAL)
def test_partial_files_of_clients(client: str) -> None:
    assert is_partial(PARTIAL[client]) and not is_litter(PARTIAL[client])


@pytest.mark.parametrize("client", HIDDEN_PARTIAL)
def test_hidden_partial_files_lead_to_the_name_they_will_have(client: str) -> None:
    assert hidden_target(HIDDEN_PARTIAL[client]) == "ben.jpg"


@pytest.mark.parametrize("system", LITTER)
def test_what_comes_with_every_copy_is_litter(system: str) -> None:
    for name in LITTER[system]:
        assert is_litter(name), name


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_is_none_of_these(name: str) -> None:
    assert not is_partial(name) and not is_litter(name) and hidden_target(name) is None
    assert control_name(name) is None and not is_ready_mark(name)


@pytest.mark.parametrize("name", ["RETRY", "retry", "Retry", "RETRY.txt", "retry.TXT"])
def test_control_files_in_any_spelling(name: str) -> None:
    assert control_name(name) == "RETRY"
    assert control_name(name.lower().replace("retry", "Cancel")) == "CANCEL"


@pytest.mark.parametrize("name", ["READY", "ready", "Ready.txt"])
def test_ready_in_any_spelling(name: str) -> None:
    assert is_ready_mark(name)
