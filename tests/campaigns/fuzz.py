"""Fuzz what strangers upload, guided by coverage: `manifest` or `image`. libFuzzer's options follow the target.

    python tests/campaigns/fuzz.py manifest -max_total_time=1200 -seed=1
    python tests/campaigns/fuzz.py image -max_total_time=1200 -seed=1

A finding ends the run with an exit code other than 0 and leaves the input as a `crash-…`, `timeout-…` or `oom-…` file:
an exception that is no refusal, a refusal that is no sentence on one line, more than 2 s, or more than 600 MB.
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastfit_watch", "yaml", "PIL"]):
    from PIL import Image

    from fastfit_watch.domain.errors import ImageError, ManifestError
    from fastfit_watch.domain.limits import Limits
    from fastfit_watch.imaging.codec import open_image
    from fastfit_watch.intake.manifest import read_manifest

NAMES = ("anna.jpg", "ben.jpg", "shirt.png", "gown.webp")
LIMITS = Limits(picture_bytes=100_000, picture_pixels=250_000)
LIBFUZZER = ["-timeout=2", "-rss_limit_mb=600", "-max_len=8192", "-print_final_stats=1", "-verbosity=0"]
MANIFESTS = (
    "person: anna.jpg\nupper: shirt.png\nseed: 7\n",
    'people: ["*.jpg"]\nsteps: 30\nlooks:\n  gala: {dress: gown.webp, steps: 40, people: [ben.jpg]}\n',
    "person: anna.jpg\ndress: gown.webp\nmask: worn\nframing: paste_back\nformat: jpg\nguidance: 2.5\n",
    "a: &a [x, x]\nb: {<<: *a}\nc: !!python/object:os.system 'x'\n",
)
MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1")


def try_manifest(data: bytes) -> None:
    """Any bytes are a manifest that keeps its promises, or faults in words."""
    try:
        manifest = read_manifest(data, "outfit.yaml", NAMES)
    except ManifestError as error:
        assert error.faults and str(error).isprintable(), error
        return
    assert manifest.looks or manifest.missing
    assert len({look.key.casefold() for look in manifest.looks}) == len(manifest.looks)
    for name in manifest.files:
        assert "/" not in name and not name.startswith(".") and name.isprintable(), name


def try_image(data: bytes) -> None:
    """Any bytes are a picture within the limits, or a refusal in a sentence."""
    try:
        image = open_image(data, LIMITS, "anna.jpg")
    except ImageError as error:
        assert str(error).isprintable() and "anna.jpg" in str(error), error
        return
    assert image.mode == "RGB"
    assert image.width * image.height <= LIMITS.picture_pixels


def plant(target: str, corpus: Path) -> None:
    """Write the inputs that the fuzzer begins with."""
    if target == "manifest":
        for number, text in enumerate(MANIFESTS):
            (corpus / str(number)).write_text(text, encoding="utf-8")
        return
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in MODES:
        image = Image.linear_gradient("L").resize((24, 32)).convert(mode)
        for kind in ("PNG", "JPEG", "WEBP"):
            data = io.BytesIO()
            try:
                image.save(data, kind, **({} if kind == "PNG" else {"exif": exif}))
            except OSError:  # a mode that this format does not have
                continue
            (corpus / f"{kind}-{mode.replace(';', '')}").write_bytes(data.getvalue())


def main() -> None:
    """Fuzz one target until libFuzzer's limits end it."""
    target = sys.argv[1]
    logging.disable(logging.CRITICAL)  # Pillow's remarks on strange files
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        plant(target, Path(corpus))
        run = {"manifest": try_manifest, "image": try_image}[target]
        atheris.Setup([sys.argv[0], *LIBFUZZER, *sys.argv[2:], corpus], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
