"""Commands that make pictures: run, try-on, reproduce, demo, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastfit_watch.cli.commands.arguments import (
    Arguments,
    add_command,
    add_engine_options,
    find_places,
    read_config,
    read_count,
    reader_of,
)
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.look import Category, Framing, MaskMode, Preset, SamplingOptions
from fastfit_watch.system.exit_codes import ExitCode

_DEFAULTS = SamplingOptions()


def add_try_on(commands: Any) -> None:
    """fastfit-watch try-on."""
    parser = add_command(commands, try_on)
    parser.add_argument("--person", type=Path, required=True, metavar="FILE", help="the photograph to dress")
    for category in Category:
        parser.add_argument(f"--{category.value}", type=Path, metavar="FILE", help=f"{category.value} to wear")
    output = Path("output.png")
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help=f"the result (default: {output})")
    steps, seed = reader_of("steps"), reader_of("seed")
    presets = [preset.value for preset in Preset]
    parser.add_argument("--preset", choices=presets, default=_DEFAULTS.preset.value, help="exact, or a quicker way")
    parser.add_argument("--steps", type=steps, help="denoising steps, 1 to 200 (default: the preset's: 30, 12, 6)")
    parser.add_argument("--seed", type=seed, help="for the same picture again (default: drawn at random, printed)")
    parser.add_argument(
        "--guidance", type=reader_of("guidance"), default=_DEFAULTS.guidance, help="1 to 20; 1 = off (default: 2.5)"
    )
    modes, framings = [mode.value for mode in MaskMode], [framing.value for framing in Framing]
    parser.add_argument("--mask", choices=modes, default=_DEFAULTS.mask.value, help="repaint all, or only what is worn")
    parser.add_argument("--framing", choices=framings, default=_DEFAULTS.framing.value, help="of the result")
    add_engine_options(parser)


def try_on(arguments: Arguments) -> int:
    """Make one picture, without the daemon.

    Prints the seed, the seconds and the peak memory of the GPU. The extension of --output chooses the format: .png,
    .jpg or .webp. A dress cannot be worn with --upper or --lower.

    example: fastfit-watch try-on --person anna.jpg --upper shirt.jpg --lower jeans.jpg --output anna.png --seed 7
    """
    from fastfit_watch.cli.try_on import TryOnRequest
    from fastfit_watch.cli.try_on import try_on as make_picture
    from fastfit_watch.imaging.codec import format_of

    garments = {category: getattr(arguments, category.value) for category in Category}
    config = read_config(arguments)
    make_picture(
        TryOnRequest(
            person=arguments.person,
            garments={category: path for category, path in garments.items() if path is not None},
            output=arguments.output,
            options=SamplingOptions(
                steps=arguments.steps or Preset(arguments.preset).steps,
                seed=arguments.seed,
                guidance=arguments.guidance,
                mask=MaskMode(arguments.mask),
                framing=Framing(arguments.framing),
                format=format_of(arguments.output),
                preset=Preset(arguments.preset),
            ),
            bundle=config.bundle,
            models=config.models,
            device=config.engine.devices[0],
            finish=config.marks.finish,
        )
    )
    return ExitCode.OK


def add_reproduce(commands: Any) -> None:
    """fastfit-watch reproduce."""
    parser = add_command(commands, reproduce)
    parser.add_argument("image", metavar="IMAGE", type=Path, help="a picture that this program made")
    parser.add_argument(
        "--from", dest="folders", action="append", type=Path, metavar="FOLDER", help="where the inputs are; repeatable"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep the new picture here")
    add_engine_options(parser)


def reproduce(arguments: Arguments) -> int:
    """Make a picture again from what it says of itself, and tell whether every byte is the same.

    The inputs are found by their hashes: in the folders of --from and all below them, else in the copies that the
    daemon keeps. Ends with exit code 0 if the picture is the same, and with 7 and what differs if it is not.

    example: fastfit-watch reproduce outputs/spring/anna.casual.png
    example: fastfit-watch reproduce anna.casual.png --from spring/ --device cpu --output again.png
    """
    from fastfit_watch.cli.reproduce import ReproduceRequest, input_folders
    from fastfit_watch.cli.reproduce import reproduce as make_again

    config = read_config(arguments)
    folders = tuple(arguments.folders or input_folders(find_places(arguments)))
    device = config.engine.devices[0]
    return make_again(
        ReproduceRequest(
            arguments.image, folders, config.models, device, bundle=arguments.bundle, output=arguments.output
        )
    )


def add_demo(commands: Any) -> None:
    """fastfit-watch demo."""
    add_command(commands, demo)


def demo(arguments: Arguments) -> int:
    """Draw three people and ten garments, and dress them with the mini bundle: the whole system in small.

    example: fastfit-watch demo
    """
    from fastfit_watch.cli.demo import run_demo

    return run_demo(read_config(arguments))


def add_bench(commands: Any) -> None:
    """fastfit-watch bench."""
    parser = add_command(commands, bench)
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the command itself")
    parser.add_argument(
        "--steps", type=reader_of("steps"), default=_DEFAULTS.steps, help="denoising steps (default: 30)"
    )
    parser.add_argument("--people", type=read_count, default=8, help="pictures of the larger jobs (default: 8)")
    parser.add_argument("--parts", nargs="*", default=(), metavar="PART", help="limits, singles, steps, presets, ...")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write bench.json and bench.svg here")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, last")
    add_engine_options(parser)


def bench(arguments: Arguments) -> int:
    """Measure this machine: pictures an hour, seconds by stage, and how near its limits it comes.

    Without --bundle it draws seeded weights of the released size: nothing is downloaded, and the times are those of the
    real ones. Everything is timed beside a plain form of the published order of work, on the same weights. Writes
    bench.json and bench.svg into --output.

    example: fastfit-watch bench
    example: fastfit-watch bench --small --device cpu --steps 2 --people 2
    """
    import json

    from fastfit_watch.bench.run import PARTS, Bench, BenchOptions
    from fastfit_watch.bundles.provision import provide_bundle
    from fastfit_watch.cli.progress_bar import DownloadReporter
    from fastfit_watch.system.devices import find_devices

    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        raise ConfigError(f"bench has no part {', '.join(sorted(unknown))}.", hint=f"Known: {', '.join(PARTS)}.")
    config = read_config(arguments)
    bundle = provide_bundle(arguments.bundle, config.models, DownloadReporter()) if arguments.bundle else None
    options = BenchOptions(
        find_devices(config.engine.devices)[0],
        bundle,
        arguments.small,
        arguments.steps,
        people=arguments.people,
        parts=tuple(arguments.parts) or PARTS,
        output=arguments.output,
    )
    bench = Bench(options)
    measured = bench.run()
    if arguments.json:
        print(json.dumps(measured, indent=2))
    return ExitCode.FAILED if bench.faults else ExitCode.OK
