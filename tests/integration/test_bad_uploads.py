"""Bad folders say what is wrong and how to mend it, and never hold up the good ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.running_daemon import RunningDaemon, draw_upload


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path_factory.mktemp("box"))
    running.start()
    yield running
    running.kill()


def _no_manifest(folder: Path) -> None:
    (folder / "outfit.yaml").unlink()


def _unknown_key(folder: Path) -> None:
    (folder / "outfit.yaml").write_text("person: p0.jpg\nuper: top0.png\n", encoding="utf-8")


def _dress_with_upper(folder: Path) -> None:
    text = "person: p0.jpg\nupper: top0.png\ndress: bottom0.png\n"
    (folder / "outfit.yaml").write_text(text, encoding="utf-8")


def _missing_file(folder: Path) -> None:
    (folder / "top0.png").unlink()


def _truncated(folder: Path) -> None:
    (folder / "p0.jpg").write_bytes((folder / "p0.jpg").read_bytes()[:-4000])


def _text_named_jpg(folder: Path) -> None:
    (folder / "p0.jpg").write_text("<html>not found</html>", encoding="utf-8")


def _link(folder: Path) -> None:
    (folder / "p0.jpg").unlink()
    (folder / "p0.jpg").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("name", "spoil", "state", "words"),
    [
        ("no_manifest", _no_manifest, "waiting", ["outfit.yaml"]),
        ("unknown_key", _unknown_key, "invalid", ["outfit.yaml:2", "uper", "Did you mean 'upper'?"]),
        ("dress_with_upper", _dress_with_upper, "invalid", ["outfit.yaml:", "Configuration Conflict", "dress"]),
        ("missing_file", _missing_file, "waiting", ["top0.png"]),
        ("truncated", _truncated, "waiting", ["p0.jpg", "ends early"]),
        ("text_named_jpg", _text_named_jpg, "invalid", ["p0.jpg", "JPEG"]),
        ("link", _link, "invalid", ["p0.jpg", "link"]),
    ],
)
def test_a_bad_folder_says_why_and_the_next_good_one_runs(
    daemon: RunningDaemon, tmp_path: Path, name: str, spoil: Callable[[Path], None], state: str, words: list[str]
) -> None:
    folder = draw_upload(tmp_path / name)
    spoil(folder)
    folder.rename(daemon.inputs / name)
    daemon.wait(
        lambda: daemon.status(name).startswith(state) and all(word in daemon.status(name) for word in words),
        f"{name} to be {state} with {words}; it says {daemon.status(name)!r}",
    )
    good = draw_upload(tmp_path / f"good-{name}")
    good.rename(daemon.inputs / good.name)
    daemon.wait_done(good.name)
    assert daemon.report(good.name)["status"] == "done"
    assert not (daemon.outputs / name / "report.json").exists()


def test_a_mended_upload_is_taken(daemon: RunningDaemon, tmp_path: Path) -> None:
    folder = draw_upload(tmp_path / "mended")
    right = (folder / "outfit.yaml").read_bytes()
    _unknown_key(folder)
    folder.rename(daemon.inputs / "mended")
    daemon.wait(lambda: daemon.status("mended").startswith("invalid"), "the fault to be told")
    (daemon.inputs / "mended" / "outfit.yaml").write_bytes(right)
    daemon.wait_done("mended")
    assert daemon.report("mended")["status"] == "done"
