"""The contact sheet: people down, looks across, each look's garments in the head row. Pillow is loaded on first use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.errors import ImageError
from fastfit_watch.images import encode_image, open_image
from fastfit_watch.job import Job, LookRecord, LookStatus
from fastfit_watch.look import ImageFormat
from fastfit_watch.write import write_bytes

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_PEOPLE, _LOOKS = 6, 8  # rows and columns of one page
_CELL = (240, 320)  # width, height of a picture
_GAP, _HEAD, _TITLE, _LABEL = 16, 150, 56, 22
_PAPER, _INK, _FAINT, _EMPTY = "#faf9f7", "#23211f", "#85807a", "#ece9e4"


def write_sheets(folder: Path, snapshot: Path, job: Job, looks: Sequence[LookRecord]) -> list[Path]:
    """Write `sheet.jpg` (and `sheet-2.jpg`... for large jobs) into `folder`; returns the pages.

    snapshot: the folder that holds the job's verified uploads.
    """
    people = list(dict.fromkeys(record.look.person for record in looks))
    names = list(dict.fromkeys(record.look.name for record in looks))
    by_place = {(record.look.person, record.look.name): record for record in looks}
    pages: list[Path] = []
    for rows in _slices(people, _PEOPLE):
        for columns in _slices(names, _LOOKS):
            shown = [record for place, record in by_place.items() if place[0] in rows and place[1] in columns]
            if shown:
                path = folder / ("sheet.jpg" if not pages else f"sheet-{len(pages) + 1}.jpg")
                page = _Page(folder, snapshot, rows, columns, by_place)
                write_bytes(path, encode_image(page.draw(job.id), ImageFormat.JPG, {}))
                pages.append(path)
    return pages


class _Page:
    """One page being drawn."""

    def __init__(
        self,
        folder: Path,
        snapshot: Path,
        people: Sequence[str],
        names: Sequence[str],
        records: dict[tuple[str, str], LookRecord],
    ) -> None:
        self._folder, self._snapshot = folder, snapshot
        self._people, self._names, self._records = people, names, records

    def draw(self, title: str) -> Image.Image:
        """The whole page as an RGB picture."""
        from PIL import Image, ImageDraw

        width = _GAP + (len(self._names) + 1) * (_CELL[0] + _GAP)
        height = _TITLE + _HEAD + len(self._people) * (_CELL[1] + _LABEL + _GAP) + _GAP
        page = Image.new("RGB", (width, height), _PAPER)
        pen = ImageDraw.Draw(page)
        _write(pen, (_GAP, 18), title, 24, _INK)
        for column, name in enumerate(self._names, start=1):
            self._draw_head(page, pen, _left(column), name)
        for row, person in enumerate(self._people):
            top = _TITLE + _HEAD + row * (_CELL[1] + _LABEL + _GAP)
            self._place(page, self._snapshot / person, (_GAP, top), _CELL)
            _write(pen, (_GAP, top + _CELL[1] + 4), person, 13, _FAINT)
            for column, name in enumerate(self._names, start=1):
                record = self._records.get((person, name))
                if record is not None:
                    self._draw_cell(page, pen, (_left(column), top), record)
        return page

    def _draw_head(self, page: Image.Image, pen: ImageDraw.ImageDraw, left: int, name: str) -> None:
        _write(pen, (left, _TITLE), name, 16, _INK)
        record = next(record for (_, look), record in self._records.items() if look == name)
        size = min(74, (_CELL[0] - 4 * 6) // max(3, len(record.look.garments)))
        for index, file in enumerate(record.look.garments.values()):
            self._place(
                page, self._snapshot / file, (left + index * (size + 6), _TITLE + 26), (size, round(size * 4 / 3))
            )

    def _draw_cell(self, page: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], record: LookRecord) -> None:
        below = (at[0], at[1] + _CELL[1] + 4)
        if record.status is LookStatus.DONE and record.result is not None:
            self._place(page, self._folder / record.result.file, at, _CELL)
            _write(pen, below, f"seed {record.look.options.seed}", 13, _FAINT)
            return
        pen.rectangle((*at, at[0] + _CELL[0] - 1, at[1] + _CELL[1] - 1), fill=_EMPTY)
        _write(pen, (at[0] + 12, at[1] + 12), record.status.value, 16, _INK)
        _write(pen, below, record.reason, 13, _FAINT)

    def _place(self, page: Image.Image, path: Path, at: tuple[int, int], size: tuple[int, int]) -> None:
        """Fit a picture into a box, keeping its aspect; one that is gone or was spoilt since leaves an empty box."""
        from PIL import Image, ImageOps

        try:
            picture = open_image(path)
        except (OSError, ImageError):
            page.paste(_EMPTY, (*at, at[0] + size[0], at[1] + size[1]))
            return
        fitted = ImageOps.contain(picture, size, Image.Resampling.LANCZOS)
        page.paste(fitted, (at[0] + (size[0] - fitted.width) // 2, at[1] + (size[1] - fitted.height) // 2))


def _left(column: int) -> int:
    return _GAP + column * (_CELL[0] + _GAP)


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str) -> None:
    """One line of text, cut with an ellipsis where it would leave its cell."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    line = "".join(letter if letter.isprintable() else "?" for letter in text)
    room = pen.im.size[0] - at[0] - _GAP if size >= 24 else _CELL[0]
    if pen.textlength(line, font) > room:
        while line and pen.textlength(line + "…", font) > room:
            line = line[:-1]
        line += "…"
    pen.text(at, line, colour, font)


def _slices(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
