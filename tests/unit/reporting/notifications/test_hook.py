"""The hook: its environment, what it cannot see, how it is ended, and where its output goes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastfit_watch.config.paths import JOB_LOG
from fastfit_watch.config.settings import HookSettings, LogSettings
from fastfit_watch.daemon.logs import set_up_logs
from fastfit_watch.reporting.notifications.hook import HookRunner, run_hook
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import HOOK, Notification, Outbox

NOW_S = 1000.0
PATIENCE_S = 120.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db")) as opened:
        yield opened


@pytest.fixture
def outbox(ledger: Ledger) -> Outbox:
    return ledger.outbox


def notification(folder: Path, job: str = "spring") -> Notification:
    folder.mkdir(parents=True, exist_ok=True)
    message = {
        "id": "1",
        "event": "job.done",
        "job": job,
        "upload": job,
        "status": "done",
        "reason": "2 pictures; `rm` $x",
    }
    return Notification(
        HOOK, "1", job, "job.done", json.dumps({**message, "folder": str(folder), "report": "report.json"}), NOW_S
    )


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "hook.py"
    path.write_text(text)
    return (sys.executable, str(path))


def test_it_knows_the_job_and_stands_in_its_folder(tmp_path: Path) -> None:
    program = "import os; print({k: v for k, v in os.environ.items() if k.startswith('FASTFIT')}, os.getcwd())"
    outcome = run_hook(HookSettings(command=script(tmp_path, program)), notification(tmp_path / "out"))
    assert outcome.exit_code == 0
    for fact in ("'FASTFIT_JOB': 'spring'", "'FASTFIT_STATUS': 'done'", f"'{tmp_path / 'out'}/report.json'", "`rm` $x"):
        assert fact in outcome.output
    assert outcome.output.strip().endswith(str(tmp_path / "out"))


def test_it_inherits_neither_secrets_nor_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very secret")
    monkeypatch.setenv("HF_TOKEN", "very secret too")
    kept = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        program = "import os; print(dict(os.environ)); print('open:', sorted(map(int, os.listdir('/proc/self/fd'))))"
        outcome = run_hook(HookSettings(command=script(tmp_path, program)), notification(tmp_path / "out"))
    finally:
        os.close(kept)
    assert "very secret" not in outcome.output and "PATH" in outcome.output
    opened = json.loads(outcome.output.rpartition("open: ")[2])
    assert set(opened) <= {0, 1, 2, 3}, "3 is the listing itself"


def test_no_shell_comes_near_its_arguments(tmp_path: Path) -> None:
    command = (*script(tmp_path, "import sys; print(sys.argv[1:])"), "$(touch broken); `id`", "a b")
    outcome = run_hook(HookSettings(command=command), notification(tmp_path / "out"))
    assert outcome.output.strip() == "['$(touch broken); `id`', 'a b']"


def test_one_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    command = ("/bin/sh", "-c", "sleep 600 & echo $!; sleep 600")  # a shell starts many times sooner than the limit
    outcome = run_hook(HookSettings(command=command, timeout_s=3.0), notification(tmp_path / "out"))
    assert outcome.exit_code == -9 and "longer than 3 s" in outcome.trouble
    _wait_until_gone(int(outcome.output))


def test_what_it_leaves_running_is_ended_and_not_waited_for(tmp_path: Path) -> None:
    program = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    began_s = time.monotonic()
    outcome = run_hook(
        HookSettings(command=script(tmp_path, program), timeout_s=PATIENCE_S), notification(tmp_path / "out")
    )
    assert outcome.exit_code == 0 and time.monotonic() - began_s < PATIENCE_S / 2
    _wait_until_gone(int(outcome.output))


def test_one_that_closes_its_output_early_is_waited_for(tmp_path: Path) -> None:
    program = "import os, time, pathlib; os.close(1); os.close(2); time.sleep(0.5); pathlib.Path('late').touch()"
    outcome = run_hook(HookSettings(command=script(tmp_path, program)), notification(tmp_path / "out"))
    assert outcome.exit_code == 0 and (tmp_path / "out" / "late").exists()


def test_only_the_first_part_of_endless_words_is_kept(tmp_path: Path) -> None:
    command = ("/bin/sh", "-c", "exec yes")
    outcome = run_hook(HookSettings(command=command, timeout_s=3.0), notification(tmp_path / "out"))
    assert len(outcome.output) == 64 * 1024 and outcome.trouble


def test_a_program_that_is_not_there_is_no_catastrophe(tmp_path: Path) -> None:
    outcome = run_hook(HookSettings(command=("/nowhere/deliver",)), notification(tmp_path / "out"))
    assert outcome.exit_code is None and "/nowhere/deliver cannot be started" in outcome.trouble


def test_its_words_go_to_the_job_s_log_and_it_runs_once(tmp_path: Path, outbox: Outbox) -> None:
    set_up_logs(LogSettings(), tmp_path, tmp_path / "outputs", io.StringIO())
    program = "import pathlib, sys; pathlib.Path('ran').open('a').write('x'); print('copied\\x1b[31m'); sys.exit(3)"
    carrier = HookRunner(HookSettings(command=script(tmp_path, program)), outbox)
    outbox.post([notification(tmp_path / "outputs" / "spring")])
    assert carrier.step(NOW_S) == 0.0
    assert carrier.step(NOW_S) > 0.0
    log = (tmp_path / "outputs" / "spring" / JOB_LOG).read_text()
    assert r"hook: copied\x1b[31m" in log and "hook failed: exit code 3" in log
    assert (tmp_path / "outputs" / "spring" / "ran").read_text() == "x"


def test_one_that_was_cut_short_with_the_daemon_runs_again(tmp_path: Path, ledger: Ledger, outbox: Outbox) -> None:
    """A process like the daemon is killed while its hook runs."""
    outbox.post([notification(tmp_path / "outputs" / "spring")])
    hook = script(tmp_path, "import pathlib, time; pathlib.Path('begun').open('a').write('x'); time.sleep(2)")
    program = (
        "import sys; from pathlib import Path; from fastfit_watch.config.settings import HookSettings;"
        "from fastfit_watch.reporting.notifications.hook import HookRunner;"
        "from fastfit_watch.storage.ledger import Ledger;"
        f"HookRunner(HookSettings(command={hook!r}), Ledger(Path({str(ledger.path)!r})).outbox).step(1000.0)"
    )
    begun = tmp_path / "outputs" / "spring" / "begun"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        deadline_s = time.monotonic() + PATIENCE_S
        while not begun.exists() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        process.kill()
    HookRunner(HookSettings(command=hook), outbox).step(NOW_S)
    assert begun.read_text() == "xx"
    assert outbox.pending() == {}


def _wait_until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")
