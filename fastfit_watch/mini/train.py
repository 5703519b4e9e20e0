"""Train the `mini` bundle on drawn figures: parser, VAE, the FastFit-shaped UNet, and the decoder once more.

    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages parser,vae --seconds 420
    python -m fastfit_watch.mini.train --out fastfit_watch/mini/weights --stages unet,decoder --seconds 540

The bundle itself is the checkpoint: run the same line again and each stage continues where its clock stopped, until it
has had its full time (`stage.PLAN_S`). Learning rates follow that clock, so pieces add up to one schedule.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fastfit_watch.mini.feed import LookFeed

_CHUNK = {True: 32, False: 4}  # looks taken in at once between two steps, by whether there is a GPU


def main() -> None:
    """Train the named stages for up to `--seconds` each; run again to continue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder: read if it exists, then written")
    parser.add_argument("--stages", default="parser,vae,unet,decoder")
    parser.add_argument("--seconds", type=float, default=1e9, help="limit for each stage in this run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=14, help="processes that draw")
    parser.add_argument("--seed", type=int, default=1, help="use another in every piece, for fresh figures")
    parser.add_argument("--plan-seconds", type=float, help="full time of a stage, if not the H100's")
    parser.add_argument("--batch", type=int, help="pictures in a batch, if not the stage's own number")
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between two checkpoints of a stage")
    options = parser.parse_args()
    limits = options.seconds, options.plan_seconds, options.batch, options.save_every
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    with LookFeed(options.processes, options.seed * 10_000_000, _CHUNK[options.device.startswith("cuda")]) as feed:
        # Only now: the networks' libraries take seconds to load, in which the processes that draw already do.
        from fastfit_watch.mini.autoencoder import train_decoder, train_vae
        from fastfit_watch.mini.parser_training import train_parser
        from fastfit_watch.mini.stage import Piece
        from fastfit_watch.mini.unet_training import train_unet

        stages = {"parser": train_parser, "vae": train_vae, "unet": train_unet, "decoder": train_decoder}
        for name in options.stages.split(","):
            stages[name](Piece(options.out, options.device, *limits), feed)
        print(f"{feed.taken} looks were drawn", flush=True)


if __name__ == "__main__":
    main()
