"""Fetching bundles: the real commands in processes of their own, against a small hub on loopback that misbehaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stand_in_hub import StandInHub, git_sha1

from fastfit_watch.exits import ExitCode

MODEL, SINGLE, TOOLKIT = "zhengchong/FastFit-MR-1024", "zhengchong/FastFit-SR-1024", "zhengchong/Human-Toolkit"
UNET = "unet/diffusion_pytorch_model.safetensors"
PICKLE = "DensePose/model_final_162be9.pkl"
NAME = "fastfit-mr-1024"
TOKEN = "hf_secretOfAnna"  # noqa: S105 - it opens nothing
PATIENCE_S = 60.0


def _content(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def safetensors(name: str, size: int) -> bytes:
    """A whole safetensors file with one tensor of so many bytes."""
    table = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(table).to_bytes(8, "little") + table + _content(name, size)


def model_files() -> dict[str, bytes]:
    """What the released repository holds, in small, with files nobody needs."""
    return {
        "README.md": b"# The card",
        "scheduler/scheduler_config.json": b"{}\n",
        "unet/config.json": b'{"a": 1}\n',
        UNET: safetensors("unet", 800_000),
        "vae/config.json": b'{"b": 2}\n',
        "vae/diffusion_pytorch_model.safetensors": safetensors("vae", 200_000),
        "samples/huge.bin": _content("huge", 50_000),
    }


def toolkit_files() -> dict[str, bytes]:
    """What the toolkit's repository holds, in small."""
    return {
        "DWPose/yolox_l.onnx": _content("yolox", 60_000),
        "DWPose/dw-ll_ucoco_384.onnx": _content("ucoco", 60_000),
        PICKLE: _content("densepose", 100_000) + b".",
        "SCHP/exp-schp-lip.pth": _content("lip", 100_000),
        "SCHP/exp-schp-atr.pth": _content("atr", 100_000),
        "SCHP/exp-schp-pascal.pth": _content("pascal", 100_000),
    }


WANTED = {name: data for name, data in model_files().items() if name.partition("/")[0] in ("scheduler", "unet", "vae")}
WANTED |= {f"parser/{name}": data for name, data in toolkit_files().items() if "pascal" not in name}
TOTAL_BYTES = sum(map(len, WANTED.values()))


class Box:
    """A machine in a folder of its own, that knows only the stand-in hub."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home, self.endpoint = home, endpoint
        self.root = home / "Models" / NAME

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {**kept, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home / "hf"), **changes}

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fastfit_watch", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.home, env=self.environment(changes), stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *arguments: str, **changes: str) -> tuple[int, str]:
        """Run a command to its end; its exit code and everything it said."""
        process = self.start(*arguments, **changes)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err, err
        return process.returncode, out + err

    def pull(self, **changes: str) -> str:
        code, text = self.run("models", "pull", **changes)
        assert code == ExitCode.OK, text
        return text

    def listed(self) -> dict[str, Any]:
        code, text = self.run("models", "list", "--json")
        assert code == ExitCode.OK
        return next(entry for entry in json.loads(text) if entry["name"] == NAME)

    def assert_whole(self, wanted: Mapping[str, bytes] = WANTED) -> None:
        here = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        assert here == {*wanted, "bundle.json", "fetched.json"}
        for name, data in wanted.items():
            assert (self.root / name).read_bytes() == data, name


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    hub = StandInHub()
    hub.publish(MODEL, model_files())
    hub.publish(TOOLKIT, toolkit_files())
    yield hub
    hub.close()


@pytest.fixture
def box(tmp_path: Path, hub: StandInHub) -> Box:
    return Box(tmp_path, hub.endpoint)


def in_model(name: str) -> str:
    """A wanted file's name in its repository."""
    return name.removeprefix("parser/")


def test_the_stand_in_speaks_what_huggingface_hub_speaks(box: Box, hub: StandInHub) -> None:
    program = f"from huggingface_hub import snapshot_download; snapshot_download({MODEL!r}, local_dir='all')"
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=box.home, env=box.environment({}), check=True, capture_output=True)
    for name, data in model_files().items():
        assert (box.home / "all" / name).read_bytes() == data
    assert {seen.method for seen in hub.seen} == {"GET", "HEAD"}


def test_a_pull_brings_what_is_needed_pins_and_records_it(box: Box, hub: StandInHub) -> None:
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


def test_a_terminal_shows_a_bar_that_grows(box: Box, hub: StandInHub) -> None:
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
    shares = [int(share) for share in re.findall(rb"fetching FastFit-MR-1024: (\d+) %", shown)]
    assert shares == sorted(shares) and len(set(shares)) > 2, shown
    assert b"of 1 MB" in shown


def test_what_is_complete_never_needs_the_hub_again(box: Box, hub: StandInHub) -> None:
    box.pull()
    hub.seen.clear()
    assert "complete in" in box.pull()
    assert box.run("models", "verify")[0] == ExitCode.OK
    assert box.listed()["state"] == "complete"
    assert hub.seen == []


def test_a_connection_that_breaks_at_half_goes_on_from_there(box: Box, hub: StandInHub) -> None:
    half = len(WANTED[UNET]) // 2
    hub.break_at[UNET] = half
    assert "going on from there" in box.pull()
    box.assert_whole()
    assert hub.sent_bytes[UNET] == len(WANTED[UNET])
    assert half in {seen.start for seen in hub.seen}


def test_kill_9_at_half_goes_on_from_there(box: Box, hub: StandInHub) -> None:
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


def test_a_hub_that_goes_down_is_said_and_nothing_is_lost(box: Box, hub: StandInHub) -> None:
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


def test_a_server_without_ranges_is_asked_for_all_of_it_again(box: Box, hub: StandInHub) -> None:
    hub.knows_ranges = False
    hub.break_at[UNET] = 300_000
    assert "damaged" not in box.pull(), "it is begun anew, not joined to what was there"
    box.assert_whole()
    assert hub.sent_bytes[UNET] == 300_000 + len(WANTED[UNET])


def test_damage_on_the_way_is_noticed_and_fetched_once_more(box: Box, hub: StandInHub) -> None:
    hub.corrupt = {UNET: 1, "vae/config.json": 1}
    text = box.pull()
    for name in hub.corrupt:
        assert f"{name} of {MODEL} arrived damaged" in text
    box.assert_whole()
    assert hub.sent_bytes[UNET] == 2 * len(WANTED[UNET])


def test_damage_that_comes_back_is_refused(box: Box, hub: StandInHub) -> None:
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
def test_refusals_are_sentences(box: Box, hub: StandInHub, trouble: str, token: str, words: list[str]) -> None:
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


def test_names_that_lead_out_of_the_folder_are_no_files_of_a_bundle(box: Box, hub: StandInHub) -> None:
    """A mirror decides what it lists; it must not decide where on this machine things are written."""
    files = {name: data for name, data in toolkit_files().items() if not name.endswith("yolox_l.onnx")}
    stray = {f"{way}/yolox_l.onnx": b"stray" for way in ("../../..", "DWPose/../../../..", str(box.home).rstrip("/"))}
    hub.publish(TOOLKIT, {**files, **stray})
    code, text = box.run("models", "pull")
    assert code == ExitCode.ENGINE
    assert "has no file for DWPose's detector (yolox_l.onnx)" in text
    assert not list(box.home.rglob("yolox_l.onnx")) and not list(box.home.parent.glob("yolox_l.onnx"))


def test_try_on_fetches_what_is_not_there(box: Box, hub: StandInHub) -> None:
    Image.new("RGB", (300, 400), "teal").save(box.home / "anna.png")
    code, text = box.run("try-on", "--person", "anna.png", "--upper", "anna.png", "--device", "cpu")
    box.assert_whole()
    assert "forbids commercial use" in text and "fetching FastFit-MR-1024: " in text
    assert code == ExitCode.ENGINE and "does not fit the network" in text, "these files are none"


def test_a_token_goes_to_the_hub_alone_and_is_never_told(box: Box, hub: StandInHub) -> None:
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


def test_no_network(box: Box) -> None:
    box.endpoint = "http://127.0.0.1:1"
    code, text = box.run("models", "pull")
    assert code == ExitCode.ENGINE
    assert "The hub at http://127.0.0.1:1 cannot be reached" in text
    assert f"copy the files into {box.root.relative_to(box.home)}" in text


def test_offline_by_the_users_wish(box: Box, hub: StandInHub) -> None:
    code, text = box.run("models", "pull", HF_HUB_OFFLINE="1")
    assert (code, hub.seen) == (ExitCode.ENGINE, [])
    assert "HF_HUB_OFFLINE is set" in text
    box.pull()
    (box.root / UNET).unlink()
    hub.seen.clear()
    code, text = box.run("models", "pull", HF_HUB_OFFLINE="1")
    assert (code, hub.seen) == (ExitCode.ENGINE, [])
    assert f"these are missing: {box.root.relative_to(box.home) / UNET}" in text


def test_too_small_a_disk_is_said_before_anything_is_fetched(box: Box, hub: StandInHub) -> None:
    hub.claim_bytes[UNET] = 10**16
    code, text = box.run("models", "pull")
    assert code == ExitCode.STORAGE
    assert "needs 10000000.3 GB more in Models/fastfit-mr-1024, but only " in text or "GB more in Models/" in text
    assert " are free there. Free some space" in text
    assert hub.sent_bytes == {}


def test_a_truncated_file_is_named_at_start_and_mended_by_a_pull(box: Box, hub: StandInHub) -> None:
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


def test_wrong_bytes_of_the_right_number_are_found_by_verify(box: Box, hub: StandInHub) -> None:
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


def test_a_pinned_revision_stays_until_an_update(box: Box, hub: StandInHub) -> None:
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


def test_a_lost_file_comes_from_the_pinned_commit(box: Box, hub: StandInHub) -> None:
    box.pull()
    hub.publish(MODEL, {**model_files(), UNET: safetensors("another", 900_000)})
    (box.root / UNET).unlink()
    box.pull()
    box.assert_whole()


def test_two_pulls_at_once_fetch_everything_once(box: Box, hub: StandInHub) -> None:
    hub.bytes_per_s = 1_500_000
    processes = [box.start("models", "pull") for _ in range(2)]
    words = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], words
    box.assert_whole()
    assert hub.sent_bytes[UNET] == len(WANTED[UNET])
    assert sum("by another process" in text for text in words) <= 1


def test_a_folder_filled_by_hand_is_used_as_it_is(box: Box, hub: StandInHub) -> None:
    source = Box(box.home / "source", hub.endpoint)
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


def test_repositories_beside_each_other_are_used_by_links(box: Box, hub: StandInHub) -> None:
    for repo, files in ((MODEL, model_files()), (TOOLKIT, toolkit_files())):
        for name, data in files.items():
            path = box.home / "Models" / repo.partition("/")[2] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    provide_without_network(box)
    for name, data in WANTED.items():
        assert (box.root / name).is_symlink() and (box.root / name).read_bytes() == data
    assert hub.seen == []


def test_a_hand_copy_with_faults_names_them(box: Box, hub: StandInHub) -> None:
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


def test_the_single_reference_bundle_and_a_directory(box: Box, hub: StandInHub) -> None:
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


def test_a_directory_named_by_its_path_is_never_fetched(box: Box, hub: StandInHub) -> None:
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


WITHOUT_NETWORK = """
import socket, sys
from pathlib import Path

def refuse(*arguments, **keywords):
    raise SystemExit("the network was asked")

socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
from fastfit_watch.models import Console, provide_bundle
print(provide_bundle(sys.argv[1], Path("Models"), Console()))
assert "huggingface_hub" not in sys.modules
"""


def provide_without_network(box: Box, name: str = NAME) -> str:
    """Make a bundle ready for the engine in a process that ends at the first look at the network."""
    command = [sys.executable, "-c", WITHOUT_NETWORK, str(name)]
    done = subprocess.run(command, cwd=box.home, env=box.environment({}), check=True, capture_output=True, text=True)
    return done.stdout.strip()
