"""Make docs/before-after.jpg from a finished demo: two people before, the garments, and two of their pictures.

fastfit-watch demo && python docs/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
UPLOAD = ROOT / "inputs" / ".spool" / "jobs" / "demo" / "snapshot"
RESULTS = ROOT / "outputs" / "demo"
ROWS = (
    ("anna", "city", ("knit", "skirt", "pumps", "clutch")),
    ("ben", "casual", ("tee", "jeans", "sneakers", "satchel")),
    ("chloe", "gala", ("gown", "pumps", "clutch")),
)
CELL = (216, 288)
GARMENT = (102, 138)
GAP = 12
PAPER = "#faf9f7"


def main() -> None:
    """Draw one panel a person, side by side: before, garments, after."""
    width = 2 * CELL[0] + 2 * GARMENT[0] + 5 * GAP
    page = Image.new("RGB", (width, len(ROWS) * (CELL[1] + GAP) + GAP), PAPER)
    for row, (person, look, garments) in enumerate(ROWS):
        top = GAP + row * (CELL[1] + GAP)
        paste(page, UPLOAD / f"{person}.jpg", (GAP, top), CELL)
        for index, garment in enumerate(garments):
            left = 2 * GAP + CELL[0] + (index % 2) * (GARMENT[0] + GAP)
            paste(page, UPLOAD / f"{garment}.png", (left, top + index // 2 * (GARMENT[1] + GAP)), GARMENT)
        paste(page, RESULTS / f"{person}.{look}.png", (width - GAP - CELL[0], top), CELL)
    page.save(ROOT / "docs" / "before-after.jpg", quality=90)


def paste(page: Image.Image, path: Path, at: tuple[int, int], size: tuple[int, int]) -> None:
    """Fit a picture into a box, centred."""
    with Image.open(path) as picture:
        fitted = ImageOps.contain(picture.convert("RGB"), size, Image.Resampling.LANCZOS)
    page.paste(fitted, (at[0] + (size[0] - fitted.width) // 2, at[1] + (size[1] - fitted.height) // 2))


if __name__ == "__main__":
    main()
