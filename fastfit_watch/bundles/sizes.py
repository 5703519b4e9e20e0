"""States what a bundle of the catalogue takes on the disk and on the card, before it is fetched."""

from __future__ import annotations

from dataclasses import dataclass

from fastfit_watch.bundles.catalogue import KNOWN

_FLOAT32_BYTES = 4
# Parameters of the networks as this program builds them. The released files were never here; half as many bytes are
# possible where they hold 16-bit numbers.
_UNET_PARAMETERS, _VAE_PARAMETERS = 815_566_084, 83_653_863
_DENSEPOSE_PARAMETERS, _SCHP_PARAMETERS = 63_927_330, 66_833_302
_DWPOSE_BYTES = 351_000_000
# The engine keeps converted copies of the three checkpoints, so these count twice.
_CHECKPOINT_PARAMETERS = 2 * (_DENSEPOSE_PARAMETERS + 2 * _SCHP_PARAMETERS)
_RELEASED_BYTES = _FLOAT32_BYTES * (_UNET_PARAMETERS + _VAE_PARAMETERS + _CHECKPOINT_PARAMETERS) + _DWPOSE_BYTES
# tests/gpu/results/h200.txt: 7.4 GiB with CUDA's own part for a full outfit in bfloat16. One garment of the
# single-reference bundle has as many tokens as four of the multi-reference one's.
_RELEASED_CARD_BYTES = 8 * 1024**3


@dataclass(frozen=True)
class BundleSize:
    """What a bundle takes at most, about. card_bytes: with everything on the card, rung `full` of the memory ladder."""

    disk_bytes: int
    card_bytes: int


SIZES = {name: BundleSize(_RELEASED_BYTES, _RELEASED_CARD_BYTES) for name in KNOWN}
"""The bundles that can be fetched. `mini` ships with the program and needs no card."""
