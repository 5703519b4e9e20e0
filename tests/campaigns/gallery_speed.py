"""How long the gallery takes for one new picture among many jobs, how large its pages are, and what a restart costs.

python tests/campaigns/gallery_speed.py --jobs 5000

Every job has twelve finished pictures and pages of its own. Prints CPU and wall milliseconds; exits 1 over the limits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.gallery_fixture import GalleryFixture

from fastfit_watch.reporting.gallery import Gallery

LIMIT_MS, LIMIT_BYTES = 100.0, 300_000
PEOPLE, LOOKS = ("anna.jpg", "ben.jpg", "chloe.jpg"), ("casual", "city", "gala", "garden")
PATIENT_S = 1e9


def main() -> int:
    """Build the jobs, make one job's pictures one by one, and measure each update."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=5000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        fixture = GalleryFixture(Path(folder))
        fixture.claim("old", PEOPLE, LOOKS)
        fixture.complete("old")
        Gallery(fixture.config, fixture.ledger).publish({}, "", PATIENT_S)
        fixture.multiply("old", jobs - 2, with_folders=True)
        fixture.claim("live", PEOPLE, LOOKS)
        gallery = Gallery(fixture.config, fixture.ledger)
        cpu_ms, wall_ms = publish(gallery)
        print(f"{jobs} jobs, all pages from nothing: {cpu_ms / 1000:.1f} s of CPU, {wall_ms / 1000:.1f} s")
        updates = []
        for number, record in enumerate(fixture.ledger.looks("live")):
            fixture.finish("live", record.look.key, 1_700_000_200.0 + number)
            updates.append(publish(gallery))
        cpu, wall = (statistics.median(column) for column in zip(*updates, strict=True))
        print(f"one new picture: {cpu:.0f} ms of CPU, {wall:.0f} ms (medians of {len(updates)})")
        print(f"restart with nothing to write: {publish(Gallery(fixture.config, fixture.ledger))[0]:.0f} ms of CPU")
        largest = max(path.stat().st_size for path in fixture.config.outputs.rglob("*.html"))
        front = (fixture.config.outputs / "index.html").stat().st_size
        print(f"largest page {largest / 1000:.0f} KB, front page {front / 1000:.0f} KB")
    return int(cpu > LIMIT_MS or largest > LIMIT_BYTES)


def publish(gallery: Gallery) -> tuple[float, float]:
    """CPU and wall milliseconds of bringing the gallery up to date."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    gallery.publish({}, "", PATIENT_S)
    return (time.process_time() - cpu_s) * 1000, (time.perf_counter() - wall_s) * 1000


if __name__ == "__main__":
    raise SystemExit(main())
