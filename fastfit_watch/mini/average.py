"""Average the networks of runs that continued from one checkpoint, each on figures of its own.

    python -m fastfit_watch.mini.average --of unet --out bundle first second

Two GPUs so train twice as much without waiting for each other (Wortsman et al. 2022; Lin et al. 2020, "local SGD").
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file

from fastfit_watch.mini.networks import WEIGHTS, save_stage


def average(name: str, folders: list[Path], out: Path) -> None:
    """Write the mean of a network, `parser`, `vae` or `unet`, of several bundles into the bundle in `out`."""
    parts = [load_file(folder / WEIGHTS[name]) for folder in folders]
    mean = {key: sum(part[key].float() for part in parts) / len(parts) for key in parts[0]}
    save_stage(out, name, mean)  # type: ignore[arg-type]  # sum() of tensors is one


def main() -> None:
    """Average the named network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=sorted(WEIGHTS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the bundle whose network is written")
    parser.add_argument("bundles", type=Path, nargs="+")
    options = parser.parse_args()
    average(options.of, options.bundles, options.out)


if __name__ == "__main__":
    main()
