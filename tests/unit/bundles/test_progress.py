"""How far a fetch is: what is told, and when. The clock is played."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastfit_watch.bundles.progress import DownloadProgress, ProgressMeter
from fastfit_watch.domain.text import gigabytes


@dataclass
class Bench:
    """A meter of 1000 bytes of which 200 were here, and what it told."""

    now_s: float = 0.0
    told: list[DownloadProgress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.meter = ProgressMeter("Weights", 1000, 200, self, clock=lambda: self.now_s)

    def say(self, text: str) -> None:
        raise AssertionError(text)

    def warn(self, text: str) -> None:
        raise AssertionError(text)

    def show(self, progress: DownloadProgress) -> None:
        self.told.append(progress)

    def count_for(self, seconds: float, per_s: int) -> None:
        """Bytes come four times a second: in steps that add up exactly."""
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            self.meter.count(per_s // 4)


def test_what_was_here_counts_as_done_and_not_for_the_speed() -> None:
    bench = Bench()
    assert str(bench.told[0]) == "fetching Weights: 20 %"
    bench.count_for(6, per_s=48)
    last = bench.told[-1]
    assert (last.done_bytes, last.total_bytes) == (488, 1000)
    assert last.left_s is not None and abs(last.left_s - 512 / 48) < 0.01
    assert str(last).startswith("fetching Weights: 48 %, about ")


def test_it_tells_once_a_second_and_marks_a_line_for_the_log_now_and_then() -> None:
    bench = Bench()
    bench.count_for(65, per_s=8)
    assert len(bench.told) == 66
    assert sum(progress.is_landmark for progress in bench.told) == 3, "at the beginning, after 30 s and after 60 s"


def test_a_file_begun_anew_takes_its_bytes_back() -> None:
    bench = Bench()
    bench.count_for(6, per_s=48)
    bench.meter.count(-300)
    bench.count_for(2, per_s=48)
    assert bench.told[-1].done_bytes <= 300
    assert bench.told[-1].left_s is None, "the speed is not known yet"


def test_nothing_to_fetch_is_all_done() -> None:
    assert DownloadProgress("Weights", 0, 0).share == 1.0
    assert [gigabytes(count) for count in (340, 12_000, 12_000_000, 4_900_000_000)] == [
        "340 bytes",
        "12 kB",
        "12 MB",
        "4.9 GB",
    ]
