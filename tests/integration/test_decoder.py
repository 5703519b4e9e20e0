"""The decoder: a picture may cost the decoding process, never the daemon and never its neighbours."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pillow_heif
import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from fastfit_watch.domain.errors import StorageError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.imaging.codec import ImageFacts
from fastfit_watch.intake.decoder import Decoder
from fastfit_watch.intake.decoder_pool import DecoderPool
from fastfit_watch.system.failpoints import VARIABLE

FACTS = ImageFacts("JPEG", 64, 48)
PATIENCE_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (48, 64), "navy").save(tmp_path / "anna.jpg")
    return tmp_path


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(Limits())) as opened:
        yield opened


def the_child(parent: int | None = None) -> psutil.Process:
    children = psutil.Process(parent).children()
    found = [child for child in children if "fastfit_watch.intake.decoder" in child.cmdline()]
    assert len(found) == 1
    return found[0]


def page_faults(pid: int) -> int:
    """How often the kernel gave the process a page of memory (proc_pid_stat(5), minflt)."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[7])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def kill_with(child: psutil.Process, picture: Path) -> None:
    """Kill a child as soon as it has that picture open."""
    wait_until(lambda: str(picture) in (file.path for file in child.open_files()))
    child.kill()


def test_faults_are_told_beside_their_neighbours(folder: Path, decoder: Decoder) -> None:
    (folder / "page.jpg").write_text("<html>")
    (folder / "half.jpg").write_bytes((folder / "anna.jpg").read_bytes()[:100])
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to("anna.jpg")
    os.mkfifo(folder / "fifo.jpg")
    words = {
        "page.jpg": "a web page",
        "half.jpg": "ends early",
        "gone.jpg": "cannot be opened",
        "folder.jpg": "no plain file",
        "link.jpg": "cannot be opened",
        "fifo.jpg": "no plain file",
        "../anna.jpg": "not in the folder",
        "/etc/passwd": "not in the folder",
    }
    found = decoder.inspect(folder, [*words, "anna.jpg"])
    for name, word in words.items():
        assert word in str(found[name]) and repr(name) in str(found[name])
    assert found["anna.jpg"] == FACTS
    assert the_child().num_fds() < 10, "what is refused is closed too"


def test_a_jpeg_without_its_end_mark_is_used_where_a_sum_proves_it_whole(folder: Path, decoder: Decoder) -> None:
    (folder / "anna.jpg").write_bytes((folder / "anna.jpg").read_bytes()[:-2])
    assert "ends early" in str(decoder.inspect(folder, ["anna.jpg"])["anna.jpg"])
    assert decoder.inspect(folder, ["anna.jpg"], {"anna.jpg"})["anna.jpg"] == FACTS
    with closing(DecoderPool(Limits(), most=1)) as pool:
        assert pool.inspect(folder, ["anna.jpg"], proven={"anna.jpg"})["anna.jpg"] == FACTS


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_what_phones_send_is_decoded_within_the_same_limits(folder: Path, kind: str) -> None:
    pillow_heif.register_heif_opener()
    Image.linear_gradient("L").resize((2000, 1500)).convert("RGB").save(folder / "phone.heic", kind, quality=50)
    (folder / "half.heic").write_bytes((folder / "phone.heic").read_bytes()[:-100])
    with closing(Decoder(Limits())) as decoder:
        found = decoder.inspect(folder, ["phone.heic", "half.heic", "anna.jpg"])
    assert found["phone.heic"] == ImageFacts(kind, 1500, 2000) and found["anna.jpg"] == FACTS
    assert "ends early" in str(found["half.heic"])


def test_odd_names_and_folders(tmp_path: Path, decoder: Decoder) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/ein \xff Ordner\n"))
    folder.mkdir()
    name = os.fsdecode(b"\xfe\n\xe2\x80\xae.jpg")
    Image.new("RGB", (48, 64)).save(folder / name, "JPEG")
    (folder / f"{name}x").write_bytes(b"no picture")
    found = decoder.inspect(folder, [name, f"{name}x"])
    assert found[name] == FACTS and str(found[f"{name}x"]).isprintable()


def test_one_child_serves_thousands_of_pictures_in_little_memory(folder: Path, decoder: Decoder) -> None:
    decoder.inspect(folder, ["anna.jpg"])
    child = the_child()
    start_s, before_bytes = sum(child.cpu_times()[:2]), child.memory_full_info().uss
    for _ in range(1000):
        assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS
    assert the_child().pid == child.pid
    assert sum(child.cpu_times()[:2]) - start_s < 100 * start_s, "a process for each picture would take 1000 starts"
    assert child.memory_full_info().uss - before_bytes < 5e6, "these pictures are 9 MB"
    assert child.num_fds() < 10
    program = "import os, PIL.Image; PIL.Image.preinit(); print(open('/proc/self/statm').read().split()[1])"
    pillow = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.memory_info().rss < 2 * int(pillow.stdout) * os.sysconf("SC_PAGE_SIZE"), "it is Pillow, and no more"


def test_the_memory_of_a_small_picture_is_kept_for_the_next(folder: Path, decoder: Decoder) -> None:
    Image.new("RGB", (1200, 900)).save(folder / "shirt.png")
    decoder.inspect(folder, ["shirt.png"])
    counts = [page_faults(the_child().pid)]
    for _ in range(5):  # short of memory, the kernel takes pages away and gives them again: not always
        decoder.inspect(folder, ["shirt.png"] * 10)
        counts.append(page_faults(the_child().pid))
    faults = min(later - sooner for sooner, later in pairwise(counts))
    assert faults < 10 * 400, "a picture and its copy are more than 1500 pages"


def test_the_memory_of_a_large_picture_is_given_back(folder: Path, decoder: Decoder) -> None:
    Image.new("RGB", (5000, 5000)).save(folder / "large.webp")
    decoder.inspect(folder, ["anna.jpg"])
    before_bytes = the_child().memory_info().rss
    assert decoder.inspect(folder, ["large.webp"])["large.webp"] == ImageFacts("WEBP", 5000, 5000)
    assert the_child().memory_info().rss - before_bytes < 50e6, "the picture alone is 75 MB"


def test_a_picture_that_needs_too_much_memory_costs_nothing_else(folder: Path) -> None:
    Image.new("RGB", (6000, 6000)).save(folder / "large.png")
    with closing(Decoder(Limits())) as decoder:
        decoder.inspect(folder, ["anna.jpg"])
        needed = the_child().memory_info().vms
    with closing(Decoder(Limits(decode_memory_bytes=needed + 100_000_000))) as decoder:  # the picture is 108 MB
        found = decoder.inspect(folder, ["anna.jpg"])
        child = the_child()
        found = decoder.inspect(folder, ["large.png", "anna.jpg"])
        assert "of memory to decode" in str(found["large.png"]) and found["anna.jpg"] == FACTS
        assert the_child().pid == child.pid


@pytest.fixture
def measured_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the children run this program for each picture, before they measure it. It knows `name` and `began_s`."""

    def replace_measure(program: str) -> None:
        folder = tmp_path / "measured_by"
        folder.mkdir()
        (folder / "program.py").write_text(program, encoding="utf-8")
        (folder / "sitecustomize.py").write_text(
            "import sys, time\n"
            "from pathlib import Path\n"
            "if sys.argv[:1] == ['-m']:\n"
            "    import fastfit_watch.imaging.codec as codec\n"
            "    measure, program = codec.measure, Path(__file__).with_name('program.py').read_text()\n"
            "    def slow(file, limits, name, *more):\n"
            "        exec(program, {'name': name, 'began_s': time.monotonic()})\n"
            "        return measure(file, limits, name, *more)\n"
            "    codec.measure = slow\n",
            encoding="utf-8",
        )
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return replace_measure


def test_a_picture_that_takes_too_long_is_named_and_the_child_replaced(
    folder: Path, measured_by: Callable[[str], None]
) -> None:
    measured_by("while name == 'slow.jpg': pass")
    (folder / "slow.jpg").write_bytes((folder / "anna.jpg").read_bytes())
    with closing(Decoder(Limits(decode_s=0.5))) as decoder:
        decoder.inspect(folder, ["anna.jpg"])
        child = the_child()
        fault = decoder.inspect(folder, ["slow.jpg"])["slow.jpg"]
        assert "'slow.jpg' takes more than 0.5 s to decode" in str(fault)
        wait_until(lambda: not child.is_running())
        assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS


def test_a_picture_is_not_to_blame_where_others_have_the_processor(
    folder: Path, measured_by: Callable[[str], None]
) -> None:
    # For a second and a half, with a tenth of the processor.
    measured_by(
        "import time\n"
        "while time.monotonic() < began_s + 1.5:\n"
        "    busy_s = time.process_time() + 0.005\n"
        "    while time.process_time() < busy_s: pass\n"
        "    time.sleep(0.05)\n"
    )
    with closing(Decoder(Limits(decode_s=0.5))) as decoder:
        began_s = time.monotonic()
        assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS
        assert time.monotonic() - began_s > 1.5


def test_a_picture_is_not_to_blame_where_the_machine_was_frozen(folder: Path) -> None:
    with closing(Decoder(Limits(decode_s=0.5))) as decoder:
        decoder.inspect(folder, ["anna.jpg"])
        frozen = the_child()
        frozen.send_signal(signal.SIGSTOP)
        assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS
        assert the_child().pid != frozen.pid, "the frozen one is replaced"


def test_no_picture_is_to_blame_where_no_child_gets_on(folder: Path, measured_by: Callable[[str], None]) -> None:
    measured_by("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
    with (
        closing(Decoder(Limits(decode_s=0.3))) as decoder,
        pytest.raises(StorageError, match=r"decodes 'anna\.jpg' does not get on"),
    ):
        decoder.inspect(folder, ["anna.jpg"])


def test_a_picture_that_crashes_the_child_is_named_and_its_neighbours_are_not(
    folder: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each child dies at its first picture, so both tries fail.
    monkeypatch.setenv(VARIABLE, "inspector.decode:1")
    fault = decoder.inspect(folder, ["anna.jpg"])["anna.jpg"]
    assert "makes the program that decodes it crash" in str(fault)
    monkeypatch.delenv(VARIABLE)
    assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS


def test_a_child_that_was_killed_by_others_blames_no_picture(folder: Path, decoder: Decoder) -> None:
    noise = io.BytesIO()
    Image.effect_noise((5000, 5000), 60).save(noise, "PNG", compress_level=1)
    (folder / "slow.png").write_bytes(noise.getvalue())
    decoder.inspect(folder, ["anna.jpg"])
    idle = the_child()
    idle.kill()
    wait_until(lambda: idle.status() == psutil.STATUS_ZOMBIE)
    assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS
    busy = the_child()
    killer = threading.Thread(target=kill_with, args=(busy, folder / "slow.png"))
    killer.start()
    assert decoder.inspect(folder, ["slow.png"])["slow.png"] == ImageFacts("PNG", 5000, 5000)
    killer.join()
    assert the_child().pid != busy.pid, "the kill must have hit a picture in hand"


def test_signals_to_everyone_do_not_reach_a_picture_in_hand(folder: Path, decoder: Decoder) -> None:
    decoder.inspect(folder, ["anna.jpg"])
    child = the_child()
    child.terminate()
    assert os.getpgid(child.pid) != os.getpgid(0), "a Ctrl-C goes to the whole group of the terminal"
    assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS
    assert the_child().pid == child.pid


def test_the_child_ends_with_close_and_can_be_had_again(folder: Path, decoder: Decoder) -> None:
    decoder.inspect(folder, ["anna.jpg"])
    child = the_child()
    decoder.close()
    decoder.close()
    assert not child.is_running()
    assert decoder.inspect(folder, ["anna.jpg"])["anna.jpg"] == FACTS


@pytest.mark.parametrize("stopped", [False, True], ids=["idle", "hanging"])
def test_the_child_dies_with_its_parent(folder: Path, stopped: bool) -> None:
    program = (
        "import sys, time; from pathlib import Path; from fastfit_watch.domain.limits import Limits;"
        "from fastfit_watch.intake.decoder import Decoder; decoder = Decoder(Limits());"
        "print(decoder.inspect(Path(sys.argv[1]), ['anna.jpg']), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and "ImageFacts" in parent.stdout.readline()
        child = the_child(parent.pid)
        if stopped:
            child.send_signal(signal.SIGSTOP)
        parent.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_child_that_cannot_start_blames_no_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with closing(Decoder(Limits())) as decoder, pytest.raises(StorageError, match="cannot be started"):
        decoder.inspect(folder, ["anna.jpg"])
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with closing(Decoder(Limits())) as decoder, pytest.raises(StorageError, match="cannot be started"):
        decoder.inspect(folder, ["anna.jpg"])


def test_the_child_stays_light(folder: Path, decoder: Decoder) -> None:
    program = (
        "import sys, fastfit_watch.intake.decoder, PIL.Image;"
        "sys.exit(' '.join({'numpy', 'torch', 'pydantic', 'yaml'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
