"""Fetching bundles: the real commands in processes of their own, against a small hub on loopback that misbehaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.fake_hub import (
    MODEL,
    PATIENCE_S,
    PICKLE,
    TOKEN,
    TOOLKIT,
    TOTAL_BYTES,
    UNET,
    WANTED,
    HubFixture,
    in_model,
    model_files,
    open_hub,
    toolkit_files,
)
from support.hub_server import HubServer, git_sha1

from fastfit_watch.system.exit_codes import ExitCode


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with open_hub() as opened:
        yield opened


@pytest.fixture
def box(tmp_path: Path, hub: HubServer) -> HubFixture:
    return HubFixture(tmp_path, hub.endpoint)


def test_the_stand_in_speaks_what_huggingface_hub_speaks(box: HubFixture, hub: HubServer) -> None:
    program = f"from huggingface_hub import snapshot_download; snapshot_download({MODEL!r}, local_dir='all')"
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=box.home, env=box.environment({}), check=True, capture_output=True)
    for name, data in model_files().items():
        assert (box.home / "all" / name).read_bytes() == data
    assert {seen.method for seen in hub.seen} == {"GET", "HEAD"}


def test_a_pull_brings_what_is_needed_pins_and_records_it(box: HubFixture, hub: HubServer) -> None:
    text = box.pull()
    assert "forbids commercial use and production use" in text
    assert "non-commercial" in text.splitlines()[-1] or "licence:" in text
    box.assert_whole()
    record = json.loads((box.root / "fetched.json").read_text())
    assert record["revisions"] == {repo: hub.repos[repo].main for repo in (MODEL, TOOLKIT)}
    for file in record["files"]:
        data = WANTED[file["path"]]
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert file["git_sha1"] in ("", git_sha1(data))
    said = json.loads((box.root / "bundle.json").read_text())
    assert said["revision"] == "+".join(hub.repos[repo].main[:12] for repo in (MODEL, TOOLKIT))
    assert (said["person_size"], said["garment_size"], said["parser"]) == ([1024, 768], [512, 384], "human-toolkit")
    assert {name: hub.sent_bytes[in_model(name)] for name in WANTED} == {n: len(d) for n, d in WANTED.items()}
    assert not {"README.md", "samples/huge.bin", "SCHP/exp-schp-pascal.pth"} & hub.sent_bytes.keys()
    listed = box.listed()
    assert (listed["state"], listed["revision"]) == ("complete", said["revision"])
    assert listed["bytes"] >= TOTAL_BYTES


def test_a_terminal_shows_a_bar_that_grows(box: HubFixture, hub: HubServer) -> None:
    hub.bytes_per_s = 300_000
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fastfit_watch", "models", "pull"]
    with subprocess.Popen(
        command, cwd=box.home, env=box.environment({}), stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # a terminal that nobody writes to any more ends so
            while part := os.read(ours, 4096):
                shown += part
        assert process.wait(PATIENCE_S) == ExitCode.OK
    os.close(ours)
    shares = [int(share) for share in re.findall(rb"(\d+)%", shown)]
    assert shares == sorted(shares) and len(set(shares)) > 2, shown
    assert b"of 1 MB" in shown


def test_what_is_complete_never_needs_the_hub_again(box: HubFixture, hub: HubServer) -> None:
    box.pull()
    hub.seen.clear()
    assert "complete in" in box.pull()
    assert box.run("models", "verify")[0] == ExitCode.OK
    assert box.listed()["state"] == "complete"
    assert hub.seen == []


def test_a_connection_that_breaks_at_half_goes_on_from_there(box: HubFixture, hub: HubServer) -> None:
    half = len(WANTED[UNET]) // 2
    hub.break_at[UNET] = half
    assert "going on from there" in box.pull()
    box.assert_whole()
    assert hub.sent_bytes[UNET] == len(WANTED[UNET])
    assert half in {seen.start for seen in hub.seen}


def test_kill_9_at_half_goes_on_from_there(box: HubFixture, hub: HubServer) -> None:
    hub.bytes_per_s = 400_000
    part = box.root / ".partial" / f"{hashlib.sha256(WANTED[UNET]).hexdigest()}.part"
    process = box.start("models", "pull")
    deadline_s = time.monotonic() + PATIENCE_S
    while not part.exists() or part.stat().st_size < len(WANTED[UNET]) // 2:
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    here = part.stat().st_size
    assert here < len(WANTED[UNET])
    assert box.listed()["state"] == "incomplete"
    hub.bytes_per_s = 0
    hub.seen.clear()
    hub.sent_bytes.clear()
    box.pull()
    box.assert_whole()
    assert [seen.start for seen in hub.seen if seen.start] == [here]
    assert hub.sent_bytes[UNET] == len(WANTED[UNET]) - here
    assert not [seen for seen in hub.seen if seen.path.startswith("/api/")], "the plan on disk names the files"


def test_a_hub_that_goes_down_is_said_and_nothing_is_lost(box: HubFixture, hub: HubServer) -> None:
    hub.bytes_per_s = 400_000
    process = box.start("models", "pull")
    deadline_s = time.monotonic() + PATIENCE_S
    while hub.sent_bytes.get(UNET, 0) < len(WANTED[UNET]) // 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    hub.is_down.set()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.ENGINE
    assert f"The hub at {hub.endpoint} cannot be reached, or breaks off" in err
    assert "X-Amz" not in err
    hub.is_down.clear()
    hub.bytes_per_s = 0
    hub.seen.clear()
    box.pull()
    box.assert_whole()
    assert max(seen.start for seen in hub.seen) > len(WANTED[UNET]) // 4


def test_a_server_without_ranges_is_asked_for_all_of_it_again(box: HubFixture, hub: HubServer) -> None:
    hub.knows_ranges = False
    hub.break_at[UNET] = 300_000
    assert "damaged" not in box.pull(), "it is begun anew, not joined to what was there"
    box.assert_whole()
    assert hub.sent_bytes[UNET] == 300_000 + len(WANTED[UNET])


def test_damage_on_the_way_is_noticed_and_fetched_once_more(box: HubFixture, hub: HubServer) -> None:
    hub.corrupt = {UNET: 1, "vae/config.json": 1}
    text = box.pull()
    for name in hub.corrupt:
        assert f"{name} of {MODEL} arrived damaged" in text
    box.assert_whole()
    assert hub.sent_bytes[UNET] == 2 * len(WANTED[UNET])


def test_damage_that_comes_back_is_refused(box: HubFixture, hub: HubServer) -> None:
    hub.corrupt = {UNET: 2}
    code, text = box.run("models", "pull")
    assert code == ExitCode.ENGINE
    assert f"error: {UNET} of {MODEL} arrived damaged" in text and "It did so twice" in text
    assert not (box.root / UNET).exists()
    assert not (box.root / "bundle.json").exists()
    box.pull()
    box.assert_whole()


@pytest.mark.parametrize(
    ("trouble", "token", "words"),
    [
        ("token", "", ["(401)", "no token is set", "Set HF_TOKEN"]),
        ("token", "hf_wrong", ["(401)", "the token that is set is not accepted"]),
        ("gated", "", ["is gated (403)", "accept conditions", f"{MODEL}"]),
        ("no repository", "", ["(401)", "private or not there"]),
        ("no revision", "", [f"{MODEL} has no revision main (404)"]),
        ("no file", "", [f"has no file {UNET}", "(404)"]),
        ("layout", "", [f"{TOOLKIT} at ", "has no file for DensePose (model_final_162be9.pkl)", "Its files: DWPose"]),
    ],
)
def test_refusals_are_sentences(box: HubFixture, hub: HubServer, trouble: str, token: str, words: list[str]) -> None:
    match trouble:
        case "token":
            hub.token = TOKEN
        case "gated":
            hub.gated = True
        case "no repository":
            del hub.repos[MODEL]
        case "no revision":
            hub.repos[MODEL].main = "f" * 40
        case "no file":
            hub.refuse[UNET] = 404
        case "layout":
            hub.publish(TOOLKIT, {name: data for name, data in toolkit_files().items() if name != PICKLE})
    code, text = box.run("models", "pull", **({"HF_TOKEN": token} if token else {}))
    assert code == ExitCode.ENGINE, text
    error = next(line for line in text.splitlines() if line.startswith("error: "))
    assert [word for word in words if word not in error] == [], error
    assert token not in text or not token


def test_a_busy_hub_is_asked_again_when_it_says(box: HubFixture, hub: HubServer) -> None:
    """The listing is turned away by a rate limit, and the first file because the hub is overloaded."""
    hub.turn_away = [(429, "2")]
    began_s = time.monotonic()
    text = box.pull()
    assert time.monotonic() - began_s >= 2
    assert f"{MODEL}: a rate limit (429); accounts may ask more often: set HF_TOKEN" in text
    assert "in 2 s." in text
    box.assert_whole()
    (box.root / UNET).unlink()
    hub.turn_away = [(503, "1"), (503, "")]
    text = box.pull()
    assert f"{UNET}, 0 bytes of it here: it answers with an error (503); going on from there in 1 s." in text
    box.assert_whole()


def test_a_rate_limit_that_lasts_is_called_one(box: HubFixture, hub: HubServer) -> None:
    hub.turn_away = [(429, "7200")]
    code, text = box.run("models", "pull", HF_TOKEN=TOKEN)
    assert code == ExitCode.ENGINE
    assert f"error: The hub at {hub.endpoint} limits how often it is asked: a rate limit (429)" in text
    assert "Set HF_TOKEN" in text and TOKEN not in text
    assert len(hub.seen) == 1, "two hours are not waited for, nor is it asked again before"


def test_names_that_lead_out_of_the_folder_are_no_files_of_a_bundle(box: HubFixture, hub: HubServer) -> None:
    """A mirror decides what it lists; it must not decide where on this machine things are written."""
    files = {name: data for name, data in toolkit_files().items() if not name.endswith("yolox_l.onnx")}
    stray = {f"{way}/yolox_l.onnx": b"stray" for way in ("../../..", "DWPose/../../../..", str(box.home).rstrip("/"))}
    hub.publish(TOOLKIT, {**files, **stray})
    code, text = box.run("models", "pull")
    assert code == ExitCode.ENGINE
    assert "has no file for DWPose's detector (yolox_l.onnx)" in text
    assert not list(box.home.rglob("yolox_l.onnx")) and not list(box.home.parent.glob("yolox_l.onnx"))


def test_try_on_fetches_what_is_not_there(box: HubFixture, hub: HubServer) -> None:
    Image.new("RGB", (300, 400), "teal").save(box.home / "anna.png")
    code, text = box.run("try-on", "--person", "anna.png", "--upper", "anna.png", "--device", "cpu")
    box.assert_whole()
    assert "forbids commercial use" in text and "fetching FastFit-MR-1024: " in text
    assert code == ExitCode.ENGINE and "does not fit the network" in text, "these files are none"


def test_a_token_goes_to_the_hub_alone_and_is_never_told(box: HubFixture, hub: HubServer) -> None:
    hub.token = TOKEN
    hub.corrupt = {UNET: 1}
    text = box.pull(HF_TOKEN=TOKEN)
    box.assert_whole()
    assert TOKEN not in text
    assert not [path for path in box.home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    at_hub = [seen for seen in hub.seen if "/resolve/" in seen.path or seen.path.startswith("/api/")]
    in_store = [seen for seen in hub.seen if seen not in at_hub]
    assert {seen.authorization for seen in at_hub} == {f"Bearer {TOKEN}"}
    assert len(in_store) > 5 and {seen.authorization for seen in in_store} == {""}


def test_no_network(box: HubFixture) -> None:
    box.endpoint = "http://127.0.0.1:1"
    code, text = box.run("models", "pull")
    assert code == ExitCode.ENGINE
    assert "The hub at http://127.0.0.1:1 cannot be reached" in text
    assert f"copy the files into {box.root.relative_to(box.home)}" in text


def test_offline_by_the_users_wish(box: HubFixture, hub: HubServer) -> None:
    code, text = box.run("models", "pull", HF_HUB_OFFLINE="1")
    assert (code, hub.seen) == (ExitCode.ENGINE, [])
    assert "HF_HUB_OFFLINE is set" in text
    box.pull()
    (box.root / UNET).unlink()
    hub.seen.clear()
    code, text = box.run("models", "pull", HF_HUB_OFFLINE="1")
    assert (code, hub.seen) == (ExitCode.ENGINE, [])
    assert f"these are missing: {box.root.relative_to(box.home) / UNET}" in text


def test_too_small_a_disk_is_said_before_anything_is_fetched(box: HubFixture, hub: HubServer) -> None:
    hub.claim_bytes[UNET] = 10**16
    code, text = box.run("models", "pull")
    assert code == ExitCode.STORAGE
    assert "needs 10000000.3 GB more in Models/fastfit-mr-1024, but only " in text or "GB more in Models/" in text
    assert " are free there. Free some space" in text
    assert hub.sent_bytes == {}
