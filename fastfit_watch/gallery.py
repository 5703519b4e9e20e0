"""The static gallery `outputs/index.html`: what is done, and what failed and why. Needs no server and no network."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from fastfit_watch.config import Config
from fastfit_watch.job import Job, LookRecord, Status
from fastfit_watch.ledger import Ledger
from fastfit_watch.write import make_folder, write_text

_NEWEST = 60  # jobs on the page
_REFRESH_S = 5
_ORDER = (Status.RUNNING, Status.QUEUED, Status.WAITING, Status.STALLED, Status.INVALID, Status.FAILED)

_STYLE = """
:root { color-scheme: light dark; --paper: #faf9f7; --ink: #23211f; --faint: #6f6a64; --card: #fff; --line: #e4e0da;
  --good: #2f7d4f; --bad: #b3372f; --busy: #8a5a00 }
@media (prefers-color-scheme: dark) { :root { --paper: #191817; --ink: #edeae6; --faint: #a39d96; --card: #232120;
  --line: #383532; --good: #7cc698; --bad: #f08a80; --busy: #e2b25c } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif;
  background: var(--paper); color: var(--ink) }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere }
.faint { color: var(--faint); margin: .2rem 0 1.5rem } a { color: inherit }
article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0 }
article p { margin: .2rem 0 .6rem; overflow-wrap: anywhere }
.done { color: var(--good) } .failed, .invalid { color: var(--bad) }
.running, .queued, .waiting, .stalled { color: var(--busy) }
ul { list-style: none; display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .8rem;
  margin: 0; padding: 0 }
li { font-size: .85rem; overflow-wrap: anywhere }
img { width: 100%; aspect-ratio: 3 / 4; object-fit: contain; background: var(--paper); border-radius: .3rem;
  display: block }
"""


def publish(config: Config, ledger: Ledger) -> None:
    """Write the gallery from the ledger: unfinished and failed jobs first, then the newest results."""
    make_folder(config.outputs)
    write_text(config.outputs / "index.html", build_page(ledger))


def build_page(ledger: Ledger) -> str:
    """The page as HTML. Everything that came from an upload is escaped."""
    jobs = ledger.jobs()
    counts = Counter(job.status for job in jobs)
    busy = counts[Status.RUNNING] + counts[Status.QUEUED] > 0
    newest = sorted(jobs, key=lambda job: (_rank(job.status), -job.changed_s))[:_NEWEST]
    summary = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status]) or "no uploads yet"
    paused = ledger.paused()
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<meta http-equiv='refresh' content='{_REFRESH_S}'>" if busy else "",
        f"<title>fastfit-watch: {escape(summary)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>fastfit-watch</h1><p class='faint'>{escape(summary)}",
        f". Paused: {escape(paused)}" if paused else "",
        f". Page written {time.strftime('%Y-%m-%d %H:%M:%S %Z')}.</p><main>",
        *(_article(job, ledger.looks(job.id)) for job in newest),
        "</main></body></html>\n",
    ]
    return "".join(parts)


def _article(job: Job, looks: Sequence[LookRecord]) -> str:
    folder = quote(job.id, safe="")
    pictures = "".join(_picture(folder, record) for record in looks)
    state = f"{job.status.value}: {job.reason}" if job.reason else job.status.value
    links = [(f"{folder}/status.txt", "status")]
    if job.status.is_final and looks:
        links += [(f"{folder}/sheet.jpg", "contact sheet"), (f"{folder}/report.json", "report")]
    line = " · ".join(f"<a href='{href}'>{text}</a>" for href, text in links)
    return (
        f"<article><h2>{escape(job.id)}</h2><p><span class='{job.status.value}'>{escape(state)}</span> · {line}</p>"
        f"<ul>{pictures}</ul></article>"
    )


def _picture(folder: str, record: LookRecord) -> str:
    name = escape(record.look.key)
    if record.result is None:
        reason = f": {escape(record.reason)}" if record.reason else ""
        return f"<li>{name}<br><span class='{record.status.value}'>{record.status.value}</span>{reason}</li>"
    href = f"{folder}/{quote(record.result.file, safe='')}"
    return f"<li><a href='{href}'><img src='{href}' alt='{name}' loading='lazy'></a>{name}</li>"


def _rank(status: Status) -> int:
    return _ORDER.index(status) if status in _ORDER else len(_ORDER)
