"""The bundles this program knows by name: where their files are published, and which of them are needed.

Sizes and steps come from the FastFit inference specification, sections 1.11 and 3. It names the folders of the released
repositories, not every file in them, so files are found by patterns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

MINI = "mini"
SHIPPED_MINI = Path(__file__).parents[1] / MINI / "weights"
"""The small bundle that comes with the package."""

PARSER = "parser"
LICENCE = "non-commercial and non-production, see the model page"


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, and the folder of the bundle that its files go to.

    branch : what is asked for at the first pull. No commit of it is known here, so the one it then stands for is
        recorded, and is what counts from then on.
    """

    name: str
    folder: str
    branch: str = "main"


@dataclass(frozen=True)
class Part:
    """One file that a bundle needs.

    Attributes
    ----------
    what : the file, for people.
    patterns : shell patterns of its path in the repository, the most wanted first. One without a slash is that of the
        bare name, in whatever folder.
    """

    what: str
    repository: Repository
    patterns: tuple[str, ...]

    def pick(self, paths: Iterable[str]) -> str | None:
        """The path of this part among those of its repository; the first in order where several fit equally."""
        ordered = sorted(paths)
        for pattern in self.patterns:
            for path in ordered:
                if fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern):
                    return path
        return None


@dataclass(frozen=True)
class KnownBundle:
    """A bundle that can be fetched. Sizes are (height, width) in pixels."""

    name: str
    title: str
    parts: tuple[Part, ...]
    person_size: tuple[int, int]
    garment_size: tuple[int, int]
    accessory_size: tuple[int, int]

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """Where its parts come from, in order."""
        return tuple(dict.fromkeys(part.repository for part in self.parts))

    @property
    def notice(self) -> str:
        """What is said before it is fetched."""
        names = " and ".join(repository.name for repository in self.repositories)
        return (
            f"Licence: the weights {names} are not part of this program. Their licence forbids commercial use and"
            " production use, and asks for content filters or human review before results are distributed. Fetching"
            " them is accepting it: read it on their model pages."
        )

    def describe(self, revision: str) -> dict[str, Any]:
        """What `bundle.json` says."""
        return {
            "name": self.name,
            "revision": revision,
            "licence": f"{LICENCE} of {self.repositories[0].name}",
            "person_size": list(self.person_size),
            "garment_size": list(self.garment_size),
            "accessory_size": list(self.accessory_size),
            "parser": "human-toolkit",
        }


def _parts(model: str) -> tuple[Part, ...]:
    weights = Repository(model, "")
    toolkit = Repository("zhengchong/Human-Toolkit", PARSER)
    networks = [
        part
        for name in ("unet", "vae")
        for part in (
            Part(f"the {name}'s configuration", weights, (f"{name}/config.json",)),
            Part(
                f"the {name}'s weights",
                weights,
                (
                    f"{name}/diffusion_pytorch_model.safetensors",
                    f"{name}/*.safetensors",
                    f"{name}/diffusion_pytorch_model.bin",
                ),
            ),
        )
    ]
    return (
        Part("the schedule", weights, ("scheduler/scheduler_config.json",)),
        *networks,
        Part("DWPose's detector", toolkit, ("yolox_l.onnx",)),
        Part("DWPose's pose network", toolkit, ("dw-ll_ucoco_384.onnx",)),
        Part("DensePose", toolkit, ("model_final_162be9.pkl",)),
        # The dataset is told by the path, as section 3.4 says.
        Part("SCHP's LIP parser", toolkit, ("*lip*.pth", "*lip*/*.pth")),
        Part("SCHP's ATR parser", toolkit, ("*atr*.pth", "*atr*/*.pth")),
    )


KNOWN: Mapping[str, KnownBundle] = {
    bundle.name: bundle
    for bundle in (
        KnownBundle(
            "fastfit-mr-1024",
            "FastFit-MR-1024",
            _parts("zhengchong/FastFit-MR-1024"),
            person_size=(1024, 768),
            garment_size=(512, 384),
            accessory_size=(512, 384),
        ),
        KnownBundle(
            "fastfit-sr-1024",
            "FastFit-SR-1024",
            _parts("zhengchong/FastFit-SR-1024"),
            person_size=(1024, 768),
            garment_size=(1024, 768),
            accessory_size=(512, 384),
        ),
    )
}


def bundle_folder(name: str, models: Path) -> Path:
    """The directory of a bundle: the shipped `mini`, any path with a slash, or a name in the folder `models`."""
    if name == MINI:
        return SHIPPED_MINI
    return Path(name) if "/" in name else models / name


def known_bundle(name: str) -> KnownBundle | None:
    """The catalogue's entry of a bundle named so; a directory counts by its last name, in whatever case."""
    return KNOWN.get(Path(name).name.lower())
