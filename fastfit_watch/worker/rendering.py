"""From picture files to a prepared look, and from a result to its file: the one way for all that makes pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fastfit_watch.domain.finishing import Finishing
from fastfit_watch.domain.look import Category, SamplingOptions
from fastfit_watch.imaging.codec import open_image
from fastfit_watch.imaging.finishing import finish_picture
from fastfit_watch.imaging.provenance import picture_marks

if TYPE_CHECKING:
    from fastfit_watch.engine.tryon import PreparedLook, TryOnEngine, TryOnResult


@dataclass(frozen=True)
class LookFiles:
    """The pictures of one look. digests : file name -> SHA-256; what was made of equal bytes before is used again."""

    person: Path
    garments: Mapping[Category, Path]
    digests: Mapping[str, str] = field(default_factory=dict)


def prepare_look(engine: TryOnEngine, files: LookFiles, options: SamplingOptions) -> PreparedLook:
    """Prepare a look from its files, which are opened only where something must be made of them.

    Raises what `TryOnEngine.prepare` does; ImageError, OSError if a file cannot be used.
    """
    from fastfit_watch.engine.preprocessing.picture import Picture

    def picture(path: Path) -> Picture:
        return Picture(partial(open_image, path), files.digests.get(path.name, ""))

    garments = {category: picture(path) for category, path in files.garments.items()}
    return engine.prepare(picture(files.person), garments, options)


def encode_result(
    result: TryOnResult,
    files: LookFiles,
    options: SamplingOptions,
    versions: Mapping[str, str],
    finish: Finishing,
    marks: Mapping[str, str],
) -> bytes:
    """Return the file of a result, with the marks that say how it was made.

    versions : from `what_runs`. marks : further ones. Raises OSError, ConfigError and EngineError as `finish_picture`.
    """
    made_with = picture_marks(files.person, files.garments, options, versions, result.rung.value)
    return finish_picture(result.image, options.format, {**marks, **made_with}, finish, files.person)
