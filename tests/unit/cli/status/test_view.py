"""`status`: what it says, at any width, with and without colours, as JSON after its schema; and what it costs."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from fastfit_watch.cli.status import view as status
from fastfit_watch.cli.status.overview import Overview, take_overview
from fastfit_watch.cli.status.table import draw
from fastfit_watch.cli.terminal import bar, pad_to, truncate, wants_colour, width
from fastfit_watch.config.paths import Paths
from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.domain.job import ClaimIntent, LookProgress, LookResult, Status
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.reporting.eta import SECONDS_NOTE, LiveProgress, read_pace, save_pace, times_left_s
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths

SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "status.schema.json").read_text(encoding="utf-8"))
NOW_S = 1000.0
PATIENCE_S = 120.0


class Screen(io.StringIO):
    """A terminal that keeps what it was told."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "inputs", tmp_path / "outputs", tmp_path / "logs")
    SpoolPaths(paths.inputs).root.mkdir(parents=True)
    return paths


@pytest.fixture
def ledger(paths: Paths) -> Ledger:
    return Ledger(SpoolPaths(paths.inputs).ledger)


def claim(ledger: Ledger, name: str, looks: int, steps: int = 10, now_s: float = 100.0) -> None:
    ledger.find_or_create_unclaimed(name, now_s)
    options = SamplingOptions(steps=steps, seed=7)
    wanted = [Look("anna.jpg", f"look{number}", {Category.UPPER: "shirt.jpg"}, options) for number in range(looks)]
    ledger.begin_claim(ClaimIntent(name, "outfit.yaml", wanted, {"anna.jpg": "00"}, f"origin of {name}"), now_s)
    ledger.finish_claim(name, now_s)


def finish(ledger: Ledger, name: str, look: int, now_s: float = 110.0) -> None:
    ledger.start_attempt(name, f"anna.look{look}", now_s)
    result = LookResult(f"anna.look{look}.png", "ab" * 32, 4, 3, {"denoise": 1.0}, None, "cpu")
    ledger.finish_look(name, f"anna.look{look}", result, now_s)
    ledger.settle_job(name, now_s)


@pytest.fixture
def busy(ledger: Ledger, paths: Paths) -> Ledger:
    """A daemon at work: `spring` is running, 1 of 4 made and the second half way; `summer` waits; `autumn` is done."""
    claim(ledger, "autumn", 1)
    finish(ledger, "autumn", 0, 105.0)
    claim(ledger, "spring", 4)
    finish(ledger, "spring", 0)
    ledger.start_attempt("spring", "anna.look1", 115.0)
    claim(ledger, "summer", 1, now_s=120.0)
    ledger.set_unclaimed_status(
        ledger.find_or_create_unclaimed("half", 130.0).id, Status.INVALID, "outfit.yaml:3: unknown key 'uper'", 130.0
    )
    ledger.put_note(SECONDS_NOTE, "0.5")
    note = {"state": "running", "pid": 1, "heartbeat_s": NOW_S - 5, "engine": "cuda:0 ready (mini)", "watch": "events"}
    ledger.put_note("daemon", json.dumps(note))
    save_pace(
        SpoolPaths(paths.inputs).progress,
        LiveProgress(NOW_S, 1, {"spring": LookProgress("anna.look1", "denoise", 5, 10)}),
    )
    return ledger


def table(ledger: Ledger, paths: Paths, stream: io.StringIO, columns: int | None = None) -> list[str]:
    return draw(take_overview(ledger, paths, NOW_S, limit=30), stream, columns, 30)


@pytest.fixture(autouse=True)
def heeded_ctrl_c() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so do its children: nothing here would end by it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_table_has_bars_and_time_left_from_measured_speed(busy: Ledger, paths: Paths) -> None:
    lines = table(busy, paths, Screen())
    plain = [re.sub(r"\x1b\[\d*m", "", line) for line in lines]
    assert plain[0] == "daemon: running, cuda:0 ready (mini), watching by events"
    assert plain[1] == "1 invalid, 1 queued, 1 running, 1 done; about 18 s left"
    jobs = {line.split()[0]: line for line in plain[4:]}
    assert list(jobs) == ["spring", "summer", "half", "autumn"]
    # 25 steps are left of spring, 10 of summer, which takes its turn meanwhile; a step takes half a second.
    assert re.search(r"running  ███████▌░{12}  1/4 +18 s", jobs["spring"])
    assert re.search(r"queued   ░{20}  0/1 +10 s", jobs["summer"])
    assert re.match(r"half    invalid  \S.*unknown key 'uper'", jobs["half"]), "its reason has the place of the bar"
    assert re.search(r"done     █{20}  1/1", jobs["autumn"])


def test_no_time_is_promised_while_nothing_moves(busy: Ledger, paths: Paths) -> None:
    busy.requests.pause("lunch", NOW_S)
    assert take_overview(busy, paths, NOW_S).time_left_s is None
    assert "paused: lunch" in "\n".join(table(busy, paths, Screen()))
    busy.requests.resume(NOW_S)
    assert take_overview(busy, paths, NOW_S).time_left_s == 17.5
    lost = take_overview(busy, paths, NOW_S + 100)
    assert (lost.daemon.state, lost.time_left_s) == ("lost", None)
    assert "not running (last sign of life 105 s ago)" in draw(lost, Screen(), None, 30)[0].replace("2 min", "105 s")


@pytest.mark.parametrize("columns", [200, 80, 60, 50, 40, 30, 20, 12])
def test_no_line_is_longer_than_the_terminal(busy: Ledger, paths: Paths, columns: int) -> None:
    claim(busy, "a very long name of a job that nobody should have given it", 2)
    claim(busy, "日本語のとても長い名前のジョブ", 2)
    for line in table(busy, paths, Screen(), columns):
        assert width(re.sub(r"\x1b\[\d*m", "", line)) <= columns
    text = "\n".join(table(busy, paths, Screen(), columns))
    assert "spring" in text
    if columns >= 30:
        assert "1/4" in text and "running" in text


def test_colours_are_for_terminals_only_and_no_color_is_obeyed(
    busy: Ledger, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[33mrunning" in "\n".join(table(busy, paths, Screen()))
    assert "\x1b" not in "\n".join(table(busy, paths, io.StringIO()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "\n".join(table(busy, paths, Screen()))
    assert not wants_colour(Screen(), {"TERM": "dumb"})


def test_a_name_cannot_speak_to_the_terminal(ledger: Ledger, paths: Paths) -> None:
    ledger.set_unclaimed_status(
        ledger.find_or_create_unclaimed("a\x1b[31m\nb", 1.0).id, Status.INVALID, "bad \x1b]0;title\x07", 2.0
    )
    lines = table(ledger, paths, io.StringIO())
    assert "\x1b" not in "".join(lines) and "\x07" not in "".join(lines)
    assert r"a\x1b[31m\nb" in lines[-1]


def test_bars_and_cuts() -> None:
    assert bar(0.5, 4, Screen()) == "██░░"
    assert bar(0.3125, 4, Screen()) == "█▎░░"
    assert bar(2.0, 4, Screen()) == "████"
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert bar(0.5, 4, ascii_only) == "##--"
    assert (truncate("spring", 4), truncate("日本語", 4), pad_to("日本", 5)) == ("spr…", "日…", "日本 ")


def test_the_wait_grows_with_what_takes_turns() -> None:
    assert times_left_s({"a": 10, "b": 4, "c": 0}, 0.5, 1) == {"a": 7.0, "b": 4.0, "c": 0.0}
    assert times_left_s({"a": 10, "b": 4}, 0.5, 2) == {"a": 3.5, "b": 2.0}


def test_a_stale_or_broken_pace_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    assert read_pace(path, NOW_S) == LiveProgress(NOW_S, 1)
    save_pace(path, LiveProgress(NOW_S, 4, {"spring": LookProgress("anna.look1", "denoise", 5, 10)}))
    assert read_pace(path, NOW_S + 1).engines == 4
    assert read_pace(path, NOW_S + 1000).engines == 1
    path.write_text("[]")
    assert read_pace(path, NOW_S) == LiveProgress(NOW_S, 1)


def test_json_is_what_its_schema_says(busy: Ledger, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert status.show(paths, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    jsonschema.validate(shown, SCHEMA)
    assert [job["id"] for job in shown["jobs"]] == ["spring", "summer", "half", "autumn"]
    assert {state: count for state, count in shown["jobs"][0]["looks"].items() if count} == {
        "queued": 2,
        "running": 1,
        "done": 1,
    }
    assert shown["counts"]["done"] == 1 and shown["seconds_per_step"] == 0.5
    mistakes: tuple[dict[str, object], ...] = ({"more": 1}, {"counts": {}}, {"version": 2})
    for broken in mistakes:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(shown | broken, SCHEMA)


def test_json_of_an_empty_ledger_is_what_its_schema_says(
    ledger: Ledger, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status.show(paths, as_json=True) == 0
    jsonschema.validate(json.loads(capsys.readouterr().out), SCHEMA)


def test_without_a_ledger_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FastFitError, match="fastfit-watch run"):
        status.show(Paths(tmp_path))


def test_it_counts_all_and_shows_the_newest(ledger: Ledger, paths: Paths) -> None:
    for number in range(40):
        ledger.set_unclaimed_status(
            ledger.find_or_create_unclaimed(f"job{number}", number).id, Status.INVALID, "no manifest", number + 1
        )
    overview: Overview = take_overview(ledger, paths, NOW_S, limit=30)
    assert len(overview.jobs) == 30 and overview.counts == {Status.INVALID: 40}
    assert draw(overview, io.StringIO(), None, 30)[-1] == "(10 more: see --json)"


@pytest.mark.parametrize("limit", [1, 3, 5, 8, 30])
def test_the_first_jobs_of_all_are_shown(busy: Ledger, paths: Paths, limit: int) -> None:
    """Those in work, then those in line, then uploads by state, each as they came; then the newest that ended."""
    for number, state in enumerate((Status.INVALID, Status.STALLED, Status.WAITING, Status.STALLED)):
        busy.set_unclaimed_status(busy.find_or_create_unclaimed(f"upload{number}", 50 - number).id, state, "why", NOW_S)
    for number in range(3):
        busy.requests.cancel(busy.find_or_create_unclaimed(f"ended{number}", 1.0).id, NOW_S + number)
    every = [state.job.id for state in take_overview(busy, paths, NOW_S).jobs]
    uploads = ["upload2", "upload3", "upload1", "upload0", "half"]
    assert every == ["spring", "summer", *uploads, "ended2", "ended1", "ended0", "autumn"]
    assert [state.job.id for state in take_overview(busy, paths, NOW_S, limit=limit).jobs] == every[:limit]


def test_follow_draws_over_itself_and_ends_cleanly_at_ctrl_c(busy: Ledger, paths: Paths) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 38, 0, 0))
        environment = {**{name: value for name, value in os.environ.items() if name != "COLUMNS"}, "TERM": "xterm"}
        os.execve(sys.executable, [sys.executable, *command(paths, "--follow")], environment)  # noqa: S606
    said = _read_until(terminal, lambda text: text.count("\x1b[H") >= 1 and "\x1b[J" in text)
    finish(busy, "summer", 0, NOW_S)
    said += _read_until(terminal, lambda text: re.search(r"summer +\x1b\[\d*mdone", text) is not None)
    os.write(terminal, b"\x03")
    _, state = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(state) == 0
    assert "Traceback" not in said
    for frame in said.split("\x1b[H")[1:-1]:
        lines = re.sub(r"\x1b\[\d*[mKJ]", "", frame).split("\r\n")
        assert len(lines) <= 12 and max(map(width, lines)) <= 38


def test_follow_ends_when_nobody_reads_any_more(busy: Ledger, paths: Paths) -> None:
    process = subprocess.Popen(
        [sys.executable, *command(paths, "--follow", "--json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    jsonschema.validate(json.loads(process.stdout.readline()), SCHEMA)
    process.stdout.close()  # nothing changes: it must notice by itself
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_follow_in_a_pipe_prints_only_what_changed(busy: Ledger, paths: Paths) -> None:
    process = subprocess.Popen([sys.executable, *command(paths, "--follow")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 65536).decode()
    assert "spring" in first and "\x1b" not in first
    assert not select.select([process.stdout], [], [], 2.5)[0]
    busy.requests.pause("lunch", time.time())
    assert "paused: lunch" in os.read(process.stdout.fileno(), 65536).decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    process.stdout.close()


def test_a_pipe_that_closes_early_is_no_error(ledger: Ledger, paths: Paths) -> None:
    for number in range(3000):
        ledger.find_or_create_unclaimed(f"a job with quite a long name to fill the pipe {number}", number)
    script = f"{sys.executable} {' '.join(command(paths, '--json'))} | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


@pytest.mark.parametrize(
    "options", [["status"], ["status", "--json"], ["logs", "--no-follow"], ["cancel", "summer"], ["pause"]]
)
def test_what_reads_the_ledger_loads_no_settings(options: list[str], busy: Ledger, paths: Paths) -> None:
    """The guard of the start-up time: these libraries cost more than all the rest."""
    heavy = "{'pydantic', 'yaml', 'loguru', 'PIL', 'numpy', 'torch', 'watchdog'}"
    program = (
        "import sys; from fastfit_watch.cli.main import main; main(sys.argv[1:]);"
        f"sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    )
    arguments = [sys.executable, "-c", program, *options, "--inputs", str(paths.inputs)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def command(paths: Paths, *options: str) -> list[str]:
    return ["-m", "fastfit_watch", "status", "--inputs", str(paths.inputs), *options]


def _read_until(terminal: int, enough: object) -> str:
    said, deadline_s = "", time.monotonic() + PATIENCE_S
    while not enough(said):  # type: ignore[operator]
        assert time.monotonic() < deadline_s, said
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 65536).decode("utf-8", "replace")
    return said
