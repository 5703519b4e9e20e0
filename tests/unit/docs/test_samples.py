"""What the pages show beside manifests: settings that load, a receiver's code that works, names that are there."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from fastfit_watch.cli.main import build_parser
from fastfit_watch.config.settings import Config, HookSettings, MetricsSettings, WebhookSettings, load_config
from fastfit_watch.domain.job import ClaimIntent, LookResult, LookStatus, Status
from fastfit_watch.domain.look import Category, Look, SamplingOptions
from fastfit_watch.imaging.provenance import picture_marks, what_runs
from fastfit_watch.reporting.metrics import MetricsExporter
from fastfit_watch.reporting.notifications.hook import run_hook
from fastfit_watch.reporting.notifications.payload import write_notification
from fastfit_watch.reporting.notifications.webhook import post
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.outbox import HOOK, WEBHOOK, Notification

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LIMIT_BYTES = 300_000


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_is_known(page: Path) -> None:
    shown = "\n".join([*blocks(page, "sh"), *re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))])
    calls = re.findall(r"(?:^|\s)(?:\S*/)?fastfit-watch +([a-z][a-z-]*\b[^\n#&|>]*)", shown, re.MULTILINE)
    for call in calls:
        build_parser().parse_args(shlex.split(call))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_shown_can_be_loaded(page: Path, tmp_path: Path) -> None:
    sections = "|".join(Config.model_fields)
    inline = re.findall(rf"`((?:{sections}): [^`\n]+)`", page.read_text(encoding="utf-8"))
    for number, text in enumerate([*blocks(page, "yaml"), *inline]):
        if re.search(r"^(person|people|looks):", text, re.MULTILINE):
            continue  # a manifest: test_docs.py reads it
        (tmp_path / f"{number}.yaml").write_text(text, encoding="utf-8")
        load_config(tmp_path / f"{number}.yaml")


def test_there_are_settings_to_load() -> None:
    assert sum(bool(re.search(r"^(webhook|hook|metrics|marks):", text, re.M)) for text in _all("yaml")) == 4


def _all(language: str) -> list[str]:
    return [text for page in PAGES for text in blocks(page, language)]


def test_the_receiver_shown_takes_true_messages_and_refuses_false_ones(tmp_path: Path) -> None:
    """The page's own program, in a process of its own, gets real deliveries over the loopback address."""
    (code,) = blocks(DOCS / "notifications.md", "python")
    (tmp_path / "receiver.py").write_text(code, encoding="utf-8")
    (tmp_path / "secret").write_text("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
    (tmp_path / "other").write_text("whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhpcyBsZW5ndGg=\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = WebhookSettings(url=f"http://127.0.0.1:{port}/", secret_file=str(tmp_path / "secret"))
    notification = Notification(WEBHOOK, "id-1", "spring", "job.done", '{"job": "spring", "status": "done"}', 1.0)
    command = [sys.executable, "receiver.py", "secret", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        while (answer := post(settings, notification, time.time())).code == 0:
            assert process.poll() is None, "it ended"
            time.sleep(0.05)
        assert answer.code == 204
        assert process.stdout is not None and process.stdout.readline() == "spring done\n"
        forged = settings.model_copy(update={"secret_file": str(tmp_path / "other")})
        assert post(forged, notification, time.time()).code == 400
        assert post(settings, notification, time.time() - 3600).code == 400
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "inputs" / ".spool").mkdir(parents=True)
    return Ledger(tmp_path / "inputs" / ".spool" / "ledger.db")


def test_the_message_shown_has_the_keys_of_a_real_one(ledger: Ledger, tmp_path: Path) -> None:
    job = ledger.find_or_create_unclaimed("spring", 1.0)
    look = Look("anna.jpg", "casual", {Category.UPPER: "shirt.jpg"}, SamplingOptions(seed=7))
    ledger.begin_claim(ClaimIntent(job.id, "outfit.yaml", [look], {}, "origin"), 2.0)
    ledger.finish_claim(job.id, 2.0)
    ledger.start_attempt(job.id, "anna.casual", 3.0)
    ledger.finish_look(job.id, "anna.casual", LookResult("a.png", "ab" * 32, 4, 3, {}, None, "cpu"), 4.0)
    ledger.settle_job(job.id, 5.0)
    done = ledger.job(job.id)
    assert done is not None and done.status is Status.DONE
    records = ledger.looks(job.id)
    assert records[0].status is LookStatus.DONE
    real = json.loads(write_notification(WEBHOOK, Config(outputs=tmp_path), done, records, 6.0).body)
    (shown,) = _all("json")
    assert list(json.loads(shown)) == list(real)
    assert list(json.loads(shown)["pictures"][0]) == list(real["pictures"][0])
    ledger.close()


def test_the_table_of_metrics_is_complete(ledger: Ledger, tmp_path: Path) -> None:
    config = Config(inputs=tmp_path / "inputs", outputs=tmp_path, metrics=MetricsSettings(listen="127.0.0.1:0"))
    metrics = MetricsExporter(config, ledger.path)
    text = metrics.text(1.0)
    metrics.start()
    metrics.stop()
    ledger.close()
    real = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert list(text_string_to_metric_families(text))
    assert set(re.findall(r"`(fastfit_[a-z_]+)`", read("notifications.md"))) == real


def test_the_hook_s_variables_are_complete(tmp_path: Path) -> None:
    told = dict.fromkeys(("id", "event", "job", "upload", "status", "reason", "report"), "x")
    notification = Notification(HOOK, "1", "spring", "job.done", json.dumps({**told, "folder": str(tmp_path)}), 1.0)
    outcome = run_hook(HookSettings(command=("/usr/bin/env",)), notification)
    real = set(re.findall(r"^(FASTFIT_[A-Z]+)=", outcome.output, re.MULTILINE))
    assert real == set(re.findall(r"`(FASTFIT_[A-Z]+)`", read("notifications.md")))


def test_the_marks_shown_are_those_of_a_picture(tmp_path: Path) -> None:
    for name in ("person", "garment"):
        (tmp_path / name).write_bytes(name.encode())
    garments = dict.fromkeys(Category, tmp_path / "garment")
    versions = what_runs("mini", "1", "Apache-2.0", "float32", "cpu")
    real = set(picture_marks(tmp_path / "person", garments, SamplingOptions(seed=7), versions, "full"))
    rows = re.findall(r"^\| (`fastfit:.*?) \|", read("marks.md"), re.MULTILINE)
    shown = {word.removeprefix("fastfit:") for row in rows for word in re.findall(r"`([^`]+)`", row)}
    assert shown - {"label", "version_torch"} <= real
    options = {"preset", "steps", "seed", "guidance", "mask", "framing", "format"}
    assert {name for name in real if not name.startswith("version_")} <= shown | options


def test_the_numbers_of_the_speed_page_are_those_of_the_bench() -> None:
    """Its tables and sentences, rounded as they stand there, made again from what the bench wrote."""
    bench = json.loads((DOCS / "bench-h200.json").read_text(encoding="utf-8"))
    page = read("speed.md").partition("<!-- measured")[2].partition("<!-- end of measured")[0].replace("\n", " ")
    singles = {single["outfit"]: single for single in bench["singles"]}
    jobs = {job["name"]: job for job in bench["jobs"]}
    step_s = bench["limits"]["ideal_step_s"] / bench["share_of_ceilings"]
    said = [f"A step takes {1000 * step_s:.0f} ms, {100 * bench['share_of_ceilings']:.0f} % of"]
    said += [f"first picture written {bench['cold_start_s']:.0f} s after"]
    said += [f"gain little, {100 * (1 - bench['batches']['4'] / bench['batches']['1']):.0f} % for four"]
    said += [f"full outfit is {singles['full outfit']['peak_vram_bytes'] / 2**30:.1f} GiB"]
    for shown, name in (("one garment",) * 2, ("two garments",) * 2, ("two garments, shoe and bag", "full outfit")):
        ours_s, theirs_s = singles[name]["seconds"], singles[name]["rival_seconds"]
        said.append(f"| {shown} | {ours_s:.2f} s | {theirs_s:.2f} s | {theirs_s / ours_s:.1f} |")
    said += [f"`preset: {preset}` | {bench['presets'][preset]:.2f} s |" for preset in ("fast", "draft")]
    said += [f"last picture on disk | {jobs['single']['seconds']:.2f} s |"]
    together = ("both of these, uploaded together", "queue")
    for shown, name in (("eight people, one outfit", "people"), ("one person, eight outfits", "outfits"), together):
        job = jobs[name]
        each_s, hourly = job["seconds"] / job["pictures"], f"{job['pictures_per_hour']:,.0f}".replace(",", " ")
        said.append(f"| {shown} | {each_s:.2f} s | {hourly} | {100 * job['busy_share']:.0f} % |")
    said += [f"after the other | {bench['rival_job_seconds_each']:.2f} s |"]
    assert [words for words in said if words not in page] == []
    said = []
    for name in ("people", "outfits"):
        stages = jobs[name]["stages"]
        said += [f"of the {jobs[name]['seconds']:.2f} s of eight {name} {stages['denoise']:.2f} s"]
        said += [f"{stages['decode']:.2f} s"]
    said += [f"{jobs['outfits']['stages']['references']:.2f} s for the garments' keys and values"]
    beside_s = jobs["single"]["seconds"] - jobs["single"]["engine_s"]
    said += [f"A single picture takes {beside_s:.2f} s more than the engine's own stages"]
    page = read("speed.md").replace("\n", " ")
    assert [words for words in said if words not in page] == []


def test_every_page_is_in_the_index_and_every_picture_on_a_page() -> None:
    index = read("README.md")
    assert [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index] == []
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = [path for path in DOCS.iterdir() if path.suffix in (".webp", ".jpg", ".png")]
    assert len(pictures) >= 4
    for path in pictures:
        assert path.name in text, f"no page shows {path.name}"
        assert path.stat().st_size < LIMIT_BYTES
        with Image.open(path) as picture:
            assert min(picture.size) > 300
