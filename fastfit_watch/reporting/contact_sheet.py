"""The contact sheet, for looking at and for printing: people down, looks across, the garments in the head row.

Pages are white, at most four people by six looks, about A4 in 250 dots an inch. Equal jobs give equal bytes: nothing on
a sheet depends on the clock or on the fonts of the machine. Pillow is loaded on first use.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.domain.errors import ImageError
from fastfit_watch.domain.job import Job, LookRecord, LookStatus
from fastfit_watch.domain.look import Framing, ImageFormat
from fastfit_watch.imaging.codec import encode_image, open_image
from fastfit_watch.system.atomic_write import write_bytes

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

_PEOPLE, _LOOKS = 4, 6  # rows and columns of one page, at most
_CELL = (360, 480)  # width, height of a picture
_GARMENT = (84, 112)
_MARGIN, _GAP, _ROW_GAP = 96, 36, 84
_TITLE, _HEAD, _FOOT = 150, 236, 112
_LARGE, _MEDIUM, _SMALL = 46, 27, 21  # letter heights
_PAPER, _INK, _FAINT, _EMPTY, _LINE = "#ffffff", "#24211e", "#77716a", "#f1eee9", "#d8d3cb"
_NOT_A_LETTER = "\uffff"
_NUMBERED = "Names that this sheet cannot write are numbered, in the manifest's order; the gallery has them in full."
_MADE = "Pictures made by a trained model from the photographs shown here."


def write_sheets(folder: Path, snapshot: Path, job: Job, looks: Sequence[LookRecord]) -> list[Path]:
    """Write `sheet.jpg`, `sheet-2.jpg`... into `folder`, and remove pages of an earlier, longer one; returns the pages.

    snapshot: the folder that holds the job's verified uploads.
    """
    table = _Table(job, looks)
    spans = [(rows, columns) for rows in _spread(table.people, _PEOPLE) for columns in _spread(table.names, _LOOKS)]
    spans = [span for span in spans if any(table.at(person, name) for person in span[0] for name in span[1])]
    pages: list[Path] = []
    for rows, columns in spans:
        path = folder / _page_file(len(pages) + 1)
        number = f"{len(pages) + 1} of {len(spans)}" if len(spans) > 1 else ""
        page = _Page(folder, snapshot, table, rows, columns)
        write_bytes(path, encode_image(page.draw(number), ImageFormat.JPG, {}))
        pages.append(path)
    _remove_from(folder, len(pages) + 1)
    return pages


@dataclass(frozen=True)
class _Table:
    """A job as rows and columns."""

    job: Job
    looks: Sequence[LookRecord]

    @cached_property
    def people(self) -> list[str]:
        """File names, in the manifest's order."""
        return list(dict.fromkeys(record.look.person for record in self.looks))

    @cached_property
    def names(self) -> list[str]:
        """Names of looks, in the manifest's order."""
        return list(dict.fromkeys(record.look.name for record in self.looks))

    @cached_property
    def _paths(self) -> Mapping[tuple[str, str], LookRecord]:
        return {(record.look.person, record.look.name): record for record in self.looks}

    def at(self, person: str, name: str) -> LookRecord | None:
        """The look of this person, if there is one."""
        return self._paths.get((person, name))

    def worn_in(self, name: str) -> LookRecord:
        """Some record of this look, for its garments."""
        return next(record for record in self.looks if record.look.name == name)

    @property
    def summary(self) -> str:
        """`3 people, 4 looks, 12 pictures`."""
        made = sum(record.status is LookStatus.DONE for record in self.looks)
        people, names = len(self.people), len(self.names)
        counts = ((people, "person", "people"), (names, "look", "looks"), (made, "picture", "pictures"))
        return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts)


class _Page:
    """One page being drawn."""

    def __init__(
        self, folder: Path, snapshot: Path, table: _Table, people: Sequence[str], names: Sequence[str]
    ) -> None:
        from PIL import Image, ImageDraw

        self._folder, self._snapshot, self._table = folder, snapshot, table
        self._people, self._names = people, names
        width = 2 * _MARGIN + _CELL[0] + len(names) * (_GAP + _CELL[0])
        height = _MARGIN + _TITLE + _HEAD + len(people) * (_CELL[1] + _ROW_GAP) + _FOOT
        self._page: Image.Image = Image.new("RGB", (width, height), _PAPER)
        self._pen = ImageDraw.Draw(self._page)
        self._writer = _Writer(self._pen)

    def draw(self, number: str) -> Image.Image:
        """The whole page as an RGB picture. number: `2 of 3`, or empty."""
        width, height = self._page.size
        right = width - _MARGIN
        self._writer.line((_MARGIN, _MARGIN), self._table.job.id, "job", _LARGE, _INK, right - _MARGIN)
        subtitle = self._table.summary + (f"   ·   page {number}" if number else "")
        self._writer.line((_MARGIN, _MARGIN + 64), subtitle, "", _SMALL, _FAINT, right - _MARGIN)
        for column, name in enumerate(self._names):
            self._draw_head(_left(column + 1), name)
        rule = _MARGIN + _TITLE + _HEAD - 30
        self._pen.line((_MARGIN, rule, right, rule), _LINE, 2)
        for row, person in enumerate(self._people):
            self._draw_row(_MARGIN + _TITLE + _HEAD + row * (_CELL[1] + _ROW_GAP), person)
        note = f"{_MADE} {_NUMBERED}" if self._writer.has_numbered else _MADE
        self._writer.line((_MARGIN, height - _FOOT), note, "", _SMALL, _FAINT, right - _MARGIN)
        return self._page

    def _draw_head(self, left: int, name: str) -> None:
        """A look's name over its garments."""
        top = _MARGIN + _TITLE
        place = f"look {self._table.names.index(name) + 1}"
        self._writer.line((left, top), name, place, _MEDIUM, _INK, _CELL[0])
        garments = list(self._table.worn_in(name).look.garments.values())
        step = min(_GARMENT[0] + 8, (_CELL[0] - _GARMENT[0]) // max(1, len(garments) - 1))
        for index, file in enumerate(garments):
            self._place(self._snapshot / file, (left + index * step, top + 52), _GARMENT, cover=False)

    def _draw_row(self, top: int, person: str) -> None:
        """A person, and what they wear in each look."""
        records = [self._table.at(person, name) for name in self._names]
        cropped = all(record.look.options.framing is Framing.CROP for record in records if record is not None)
        self._place(self._snapshot / person, (_MARGIN, top), _CELL, cover=cropped)
        place = f"person {self._table.people.index(person) + 1}"
        self._writer.line((_MARGIN, top + _CELL[1] + 12), _stem(person), place, _MEDIUM, _INK, _CELL[0])
        for column, record in enumerate(records, start=1):
            if record is not None:
                self._draw_cell((_left(column), top), record)

    def _draw_cell(self, at: tuple[int, int], record: LookRecord) -> None:
        if record.status is LookStatus.DONE and record.result is not None:
            self._place(self._folder / record.result.file, at, _CELL, cover=False)
            seed = f"seed {record.look.options.seed}"
            self._writer.line((at[0], at[1] + _CELL[1] + 14), seed, "", _SMALL, _FAINT, _CELL[0])
            return
        self._pen.rectangle((*at, at[0] + _CELL[0] - 1, at[1] + _CELL[1] - 1), fill=_EMPTY)
        inside = _CELL[0] - 48
        self._writer.line((at[0] + 24, at[1] + 24), record.status.value, "", _MEDIUM, _INK, inside)
        self._writer.block((at[0] + 24, at[1] + 72), record.reason, _SMALL, _FAINT, inside, lines=14)

    def _place(self, path: Path, at: tuple[int, int], size: tuple[int, int], *, cover: bool) -> None:
        """Put a picture into a box, whole or (`cover`) filling it; one that is gone or spoilt leaves an empty box."""
        from PIL import Image, ImageOps

        try:
            picture = open_image(path)
        except (OSError, ImageError):
            self._page.paste(_EMPTY, (*at, at[0] + size[0], at[1] + size[1]))
            return
        fit = ImageOps.fit if cover else ImageOps.contain
        fitted = fit(picture, size, Image.Resampling.LANCZOS)
        self._page.paste(fitted, (at[0] + (size[0] - fitted.width) // 2, at[1] + (size[1] - fitted.height) // 2))


class _Writer:
    """Letters on a page. has_numbered: a name could not be written, and its number stands for it."""

    def __init__(self, pen: ImageDraw.ImageDraw) -> None:
        self._pen = pen
        self._known: dict[str, bool] = {}
        self.has_numbered = False

    def line(self, at: tuple[int, int], text: str, number: str, size: int, colour: str, room: int) -> None:
        """One line, cut with an ellipsis where it would leave its room.

        number: stands for a text of which the font lacks letters; without one these are left out.
        """
        line = self._plain(text)
        if number and len(line) < len(text):
            self.has_numbered = True
            line = number
        font = _font(size)
        if self._pen.textlength(line, font) > room:
            while line and self._pen.textlength(line + "…", font) > room:
                line = line[:-1]
            line += "…"
        self._pen.text(at, line, colour, font)

    def block(self, at: tuple[int, int], text: str, size: int, colour: str, room: int, lines: int) -> None:
        """A few lines; what does not fit is cut."""
        font, shown = _font(size), [""]
        for word in self._plain(text).split():
            longer = f"{shown[-1]} {word}".strip()
            if shown[-1] and self._pen.textlength(longer, font) > room:
                shown.append(word)
            else:
                shown[-1] = longer
        if len(shown) > lines:
            shown = [*shown[: lines - 1], shown[lines - 1] + "…"]
        for row, line in enumerate(shown):
            self.line((at[0], at[1] + round(row * size * 1.4)), line, "", size, colour, room)

    def _plain(self, text: str) -> str:
        """The text without accents and without letters that the font does not have: those it would draw as boxes."""
        bare = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
        return "".join(letter for letter in bare if self._has(letter))

    def _has(self, letter: str) -> bool:
        if letter not in self._known:
            font = _font(_MEDIUM)
            box, drawn = font.getmask(_NOT_A_LETTER), font.getmask(letter)
            self._known[letter] = letter.isprintable() and (drawn.size, bytes(drawn)) != (box.size, bytes(box))
        return self._known[letter]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow, so that every machine writes the same."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _stem(person: str) -> str:
    return person.rsplit(".", 1)[0]


def _left(column: int) -> int:
    return _MARGIN + column * (_CELL[0] + _GAP)


def _page_file(number: int) -> str:
    return "sheet.jpg" if number == 1 else f"sheet-{number}.jpg"


def _remove_from(folder: Path, number: int) -> None:
    while (path := folder / _page_file(number)).is_file():
        path.unlink()
        number += 1


def _spread(items: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Split into parts of at most `most` items, as equal as can be: of four, nine are 3 + 3 + 3 and not 4 + 4 + 1."""
    parts = max(1, -(-len(items) // most))
    for part in range(parts):
        yield items[part * len(items) // parts : (part + 1) * len(items) // parts]
