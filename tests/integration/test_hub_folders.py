"""Bundles on the disk: damaged, pinned, shared, filled by hand, or named by their folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.fake_hub import (
    MODEL,
    NAME,
    PATIENCE_S,
    PICKLE,
    SINGLE,
    TOOLKIT,
    UNET,
    WANTED,
    HubFixture,
    model_files,
    open_hub,
    provide_without_network,
    safetensors,
    toolkit_files,
)
from support.hub_server import HubServer

from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with open_hub() as opened:
        yield opened


@pytest.fixture
def box(tmp_path: Path, hub: HubServer) -> HubFixture:
    return HubFixture(tmp_path, hub.endpoint)


def test_a_truncated_file_is_named_at_start_and_mended_by_a_pull(box: HubFixture, hub: HubServer) -> None:
    box.pull()
    os.truncate(box.root / UNET, 1000)
    hub.seen.clear()
    Image.new("RGB", (300, 400), "teal").save(box.home / "anna.png")
    code, text = box.run("try-on", "--person", "anna.png", "--upper", "anna.png", "--device", "cpu")
    assert code == ExitCode.ENGINE
    named = f"{box.root.relative_to(box.home) / UNET} is cut off: 1000 bytes instead of {len(WANTED[UNET])}."
    assert f"error: {named} Run 'fastfit-watch models pull'" in text
    assert hub.seen == []
    assert named in box.run("models", "list")[1]
    hub.sent_bytes.clear()
    assert "It is fetched again." in box.pull()
    box.assert_whole()
    assert hub.sent_bytes == {UNET: len(WANTED[UNET])}


def test_wrong_bytes_of_the_right_number_are_found_by_verify(box: HubFixture, hub: HubServer) -> None:
    box.pull()
    path = box.root / "parser" / PICKLE
    path.write_bytes(bytes(len(path.read_bytes())))
    assert box.listed()["state"] == "complete", "a start looks at sizes only"
    code, text = box.run("models", "verify")
    assert code == ExitCode.ENGINE
    assert f"{PICKLE} is damaged or another file" in text and "models pull" in text
    hub.sent_bytes.clear()
    box.pull()
    box.assert_whole()
    assert hub.sent_bytes == {PICKLE: len(WANTED[f"parser/{PICKLE}"])}


def test_a_pinned_revision_stays_until_an_update(box: HubFixture, hub: HubServer) -> None:
    box.pull()
    first = hub.repos[MODEL].main
    newer = {**model_files(), "unet/config.json": b'{"a": 2}\n'}
    del newer[UNET]
    newer["unet/diffusion_pytorch_model.fp16.safetensors"] = safetensors("half", 400_000)
    hub.publish(MODEL, newer)
    hub.seen.clear()
    hub.sent_bytes.clear()
    box.pull()
    assert hub.seen == []
    assert box.listed()["revision"].startswith(first[:12])

    hub.refuse["unet/diffusion_pytorch_model.fp16.safetensors"] = 404
    assert box.run("models", "pull", "--update")[0] == ExitCode.ENGINE
    assert (box.listed()["state"], box.listed()["revision"][:12]) == ("complete", first[:12])
    assert (box.root / UNET).exists(), "an update that failed leaves what was there"

    hub.refuse.clear()
    code, text = box.run("models", "pull", "--update")
    assert code == ExitCode.OK, text
    wanted = {name: data for name, data in WANTED.items() if name not in (UNET, "unet/config.json")}
    changed = {name: newer[name] for name in ("unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors")}
    box.assert_whole(wanted | changed)
    assert hub.sent_bytes == {name: len(data) for name, data in changed.items()}
    assert box.listed()["revision"].startswith(hub.repos[MODEL].main[:12])


def test_a_lost_file_comes_from_the_pinned_commit(box: HubFixture, hub: HubServer) -> None:
    box.pull()
    hub.publish(MODEL, {**model_files(), UNET: safetensors("another", 900_000)})
    (box.root / UNET).unlink()
    box.pull()
    box.assert_whole()


def test_two_pulls_at_once_fetch_everything_once(box: HubFixture, hub: HubServer) -> None:
    hub.bytes_per_s = 1_500_000
    processes = [box.start("models", "pull") for _ in range(2)]
    words = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], words
    box.assert_whole()
    assert hub.sent_bytes[UNET] == len(WANTED[UNET])
    assert sum("by another process" in text for text in words) <= 1


def test_a_folder_filled_by_hand_is_used_as_it_is(box: HubFixture, hub: HubServer) -> None:
    source = HubFixture(box.home / "source", hub.endpoint)
    source.home.mkdir()
    source.pull()
    hub.seen.clear()
    shutil.copytree(source.root, box.root, ignore=shutil.ignore_patterns("*.json.bak", "fetched.json", "bundle.json"))
    assert provide_without_network(box) == str(box.root.relative_to(box.home))
    assert json.loads((box.root / "bundle.json").read_text())["revision"] == "copied by hand"
    assert box.listed()["state"] == "complete"
    assert "nobody recorded" in box.run("models", "verify")[1]
    assert hub.seen == []
    hub.sent_bytes.clear()
    box.pull()
    box.assert_whole()
    assert hub.sent_bytes == {}, "what is whole is compared, not fetched"


def test_repositories_beside_each_other_are_used_by_links(box: HubFixture, hub: HubServer) -> None:
    for repo, files in ((MODEL, model_files()), (TOOLKIT, toolkit_files())):
        for name, data in files.items():
            path = box.home / "Models" / repo.partition("/")[2] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    provide_without_network(box)
    for name, data in WANTED.items():
        assert (box.root / name).is_symlink() and (box.root / name).read_bytes() == data
    assert hub.seen == []


def test_a_hand_copy_with_faults_names_them(box: HubFixture, hub: HubServer) -> None:
    box.pull()
    (box.root / "fetched.json").unlink()
    (box.root / UNET).write_bytes(WANTED[UNET][:-1])
    (box.root / "parser" / PICKLE).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    shutil.rmtree(box.root / "vae")
    hub.seen.clear()
    faults = "\n".join(box.listed()["faults"])
    assert f"{UNET} is cut off or damaged" in faults
    assert f"{PICKLE} is only Git's pointer to the file" in faults
    assert "lacks the vae's weights (vae/diffusion_pytorch_model.safetensors)" in faults
    with pytest.raises(subprocess.CalledProcessError):
        provide_without_network(box)
    assert hub.seen == []
    box.pull()
    box.assert_whole()


def test_the_single_reference_bundle_and_a_directory(box: HubFixture, hub: HubServer) -> None:
    hub.publish(SINGLE, model_files())
    code, text = box.run("models", "pull", "fastfit-sr-1024")
    assert code == ExitCode.OK, text
    root = box.home / "Models" / "fastfit-sr-1024"
    assert json.loads((root / "bundle.json").read_text())["garment_size"] == [1024, 768]
    hub.seen.clear()
    moved = str(shutil.move(root, box.home / "elsewhere"))
    assert provide_without_network(box, moved) == moved
    code, text = box.run("models", "pull", "fastfit-mr-1025")
    assert (code, "Did you mean 'fastfit-mr-1024'?" in text) == (ExitCode.USAGE, True)
    assert "comes with the program" in box.run("models", "pull", "mini")[1]
    assert hub.seen == []


def test_a_directory_named_by_its_path_is_never_fetched(box: HubFixture, hub: HubServer) -> None:
    box.pull()
    moved = Path(shutil.move(box.root, box.home / NAME))
    (moved / UNET).unlink()
    (moved / "fetched.json").unlink()
    (moved / "bundle.json").unlink()
    hub.seen.clear()
    Image.new("RGB", (300, 400), "teal").save(box.home / "anna.png")
    outfit = ("--person", "anna.png", "--upper", "anna.png")
    code, text = box.run("try-on", *outfit, "--device", "cpu", "--bundle", f"./{NAME}")
    assert (code, hub.seen) == (ExitCode.ENGINE, [])
    assert f"lacks the unet's weights ({UNET})" in text
