"""The command line: one function a command, its help in its docstring, its imports inside."""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastfit_watch.errors import (
    BundleError,
    ConfigError,
    EngineError,
    FastFitError,
    StorageError,
    UploadError,
)
from fastfit_watch.exits import ExitCode
from fastfit_watch.look import Category, Framing, MaskMode, SamplingOptions

if TYPE_CHECKING:
    from fastfit_watch.config import Config
    from fastfit_watch.ledger import Ledger

_CODES: tuple[tuple[type[FastFitError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (UploadError, ExitCode.INVALID),
    (StorageError, ExitCode.STORAGE),
    (EngineError, ExitCode.ENGINE),
    (BundleError, ExitCode.ENGINE),
)
_DEFAULTS = SamplingOptions()
_Arguments = argparse.Namespace
_Changed = TypeVar("_Changed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors people can mend are lines on standard error, no traceback."""
    settings = build_parser().parse_args(arguments)
    try:
        return int(settings.command(settings))
    except FastFitError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def run(arguments: _Arguments) -> int:
    """Watch the inputs folder and dress what people upload, until told to stop.

    The first SIGTERM or Ctrl-C finishes the picture in hand and keeps the rest for the next start; a second one stops
    at once and loses nothing. SIGHUP reads the settings again.

    example: fastfit-watch run --config configs/default.yaml
    example: fastfit-watch run --once --bundle mini
    """
    from fastfit_watch.daemon import Daemon

    return Daemon(_read_config(arguments), once=arguments.once, reread=lambda: _read_config(arguments)).run()


def try_on(arguments: _Arguments) -> int:
    """Make one picture, without the daemon.

    Prints the seed, the seconds and the peak memory of the GPU. The extension of --output chooses the format: .png,
    .jpg or .webp. A dress cannot be worn with --upper or --lower.

    example: fastfit-watch try-on --person anna.jpg --upper shirt.jpg --lower jeans.jpg --output anna.png --seed 7
    """
    from fastfit_watch import oneshot

    garments = {category: getattr(arguments, category.value) for category in Category}
    config = _read_config(arguments)
    oneshot.try_on(
        oneshot.Request(
            person=arguments.person,
            garments={category: path for category, path in garments.items() if path is not None},
            output=arguments.output,
            options=SamplingOptions(
                steps=arguments.steps,
                seed=arguments.seed,
                guidance=arguments.guidance,
                mask=MaskMode(arguments.mask),
                framing=Framing(arguments.framing),
                format=oneshot.format_of(arguments.output),
            ),
            bundle=config.bundle,
            models=config.models,
            device=config.engine.devices[0],
        )
    )
    return ExitCode.OK


def check(arguments: _Arguments) -> int:
    """Find every mistake of job folders before they are uploaded. Needs no GPU and changes nothing.

    example: fastfit-watch check spring/ summer/
    """
    from fastfit_watch.check import check_folders

    return check_folders(arguments.jobs, _read_config(arguments).limits)


def status(arguments: _Arguments) -> int:
    """Show what the daemon is doing, and every job with its state, pictures made, and reason.

    Reads the ledger only: works while the daemon runs, and when it does not. --json prints everything; --follow prints
    again every second until Ctrl-C.

    example: fastfit-watch status
    example: fastfit-watch status --json
    """
    from fastfit_watch.status import show

    return show(_read_config(arguments), as_json=arguments.json, follow=arguments.follow)


def retry(arguments: _Arguments) -> int:
    """Try the failed and cancelled pictures of a job again, or check an unusable upload again.

    example: fastfit-watch retry spring
    """
    job = _change(arguments, lambda ledger, now_s: ledger.retry(arguments.job, now_s))
    print(f"{job.id}: {job.status.value}: {job.reason}")
    return ExitCode.OK


def cancel(arguments: _Arguments) -> int:
    """Start no more pictures of a job. One in hand is finished first; what is made stays.

    example: fastfit-watch cancel spring
    """
    job = _change(arguments, lambda ledger, now_s: ledger.cancel(arguments.job, now_s))
    print(f"{job.id}: {job.status.value}: {job.reason}")
    return ExitCode.OK


def pause(arguments: _Arguments) -> int:
    """Start no more pictures of any job until 'resume'. Uploads are still taken.

    example: fastfit-watch pause --reason "the GPU is needed until noon"
    """
    _change(arguments, lambda ledger, now_s: ledger.pause(arguments.reason, now_s))
    print(f"paused: {arguments.reason}")
    return ExitCode.OK


def resume(arguments: _Arguments) -> int:
    """Start pictures again after 'pause'.

    example: fastfit-watch resume
    """
    _change(arguments, lambda ledger, now_s: ledger.resume(now_s))
    print("resumed")
    return ExitCode.OK


def demo(arguments: _Arguments) -> int:
    """Draw three people and ten garments, and dress them with the mini bundle: the whole system in small.

    example: fastfit-watch demo
    """
    from fastfit_watch.demo import run_demo

    return run_demo(_read_config(arguments))


def build_parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    codes = "\n".join(f"  {code.value:3}  {code.name.lower():12} {code.meaning}" for code in ExitCode)
    parser = argparse.ArgumentParser(
        prog="fastfit-watch",
        description="Dresses the people in uploaded job folders with a resident FastFit virtual try-on engine.",
        epilog=f"exit codes:\n{codes}\n\nexample: fastfit-watch COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_try_on(commands)
    _add(commands, check).add_argument("jobs", metavar="JOB", nargs="+", type=Path, help="job folder to check")
    shown = _add(commands, status)
    shown.add_argument("--json", action="store_true", help="print everything as JSON")
    shown.add_argument("--follow", action="store_true", help="print again every second")
    for command in (retry, cancel):
        _add(commands, command).add_argument("job", metavar="JOB", help="name of the job, as 'status' shows it")
    _add(commands, pause).add_argument("--reason", default="paused by request", help="shown to everyone who asks")
    _add(commands, resume)
    _add(commands, demo)
    return parser


def _add(commands: Any, command: Callable[[_Arguments], int]) -> argparse.ArgumentParser:
    """A command with the options that all share; its help is its docstring."""
    text = inspect.getdoc(command) or ""
    parser: argparse.ArgumentParser = commands.add_parser(
        command.__name__.replace("_", "-"),
        help=text.splitlines()[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; configs/default.yaml lists them all")
    parser.add_argument("--inputs", metavar="FOLDER", help="folder that people upload into (default: inputs)")
    parser.add_argument("--outputs", metavar="FOLDER", help="folder for results (default: outputs)")
    return parser


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="NAME", help="weights: fastfit-mr-1024, fastfit-sr-1024, mini, or a path")
    parser.add_argument("--models", metavar="FOLDER", help="folder of downloaded bundles (default: Models)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda:0, ... (default: auto)")


def _add_run(commands: Any) -> None:
    parser = _add(commands, run)
    parser.add_argument("--once", action="store_true", help="process what is complete, then end")
    _add_engine_options(parser)


def _add_try_on(commands: Any) -> None:
    parser = _add(commands, try_on)
    parser.add_argument("--person", type=Path, required=True, metavar="FILE", help="the photograph to dress")
    for category in Category:
        parser.add_argument(f"--{category.value}", type=Path, metavar="FILE", help=f"{category.value} to wear")
    output = Path("output.png")
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help=f"the result (default: {output})")
    parser.add_argument("--steps", type=_steps, default=_DEFAULTS.steps, help="denoising steps, 1 to 200 (default: 30)")
    parser.add_argument("--seed", type=_seed, help="for the same picture again (default: drawn at random, printed)")
    parser.add_argument(
        "--guidance", type=_guidance, default=_DEFAULTS.guidance, help="1 to 20; 1 = off (default: 2.5)"
    )
    modes, framings = [mode.value for mode in MaskMode], [framing.value for framing in Framing]
    parser.add_argument("--mask", choices=modes, default=_DEFAULTS.mask.value, help="repaint all, or only what is worn")
    parser.add_argument("--framing", choices=framings, default=_DEFAULTS.framing.value, help="of the result")
    _add_engine_options(parser)


def _steps(text: str) -> int:
    return int(_number(text, int, 1, 200))


def _seed(text: str) -> int:
    return int(_number(text, int, 0, 2**63 - 1))


def _guidance(text: str) -> float:
    return _number(text, float, 1, 20)


def _number(text: str, kind: Callable[[str], float], least: float, most: float) -> float:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
    return value


def _read_config(arguments: _Arguments) -> Config:
    """The settings file, then what the command line says."""
    from fastfit_watch.config import load_config

    given = {key: getattr(arguments, key, None) for key in ("inputs", "outputs", "bundle", "models")}
    config = load_config(arguments.config, {key: value for key, value in given.items() if value is not None})
    device = getattr(arguments, "device", None)
    if device is None:
        return config
    return config.model_copy(update={"engine": config.engine.model_copy(update={"devices": (device,)})})


def _change(arguments: _Arguments, act: Callable[[Ledger, float], _Changed]) -> _Changed:
    """Change the ledger; a daemon that runs notices within a second, one that does not at its start."""
    from fastfit_watch.ledger import Ledger

    path = _read_config(arguments).spool / "ledger.db"
    if not path.exists():
        raise ConfigError(f"There is no ledger at {path}.", hint="Name the folder with --inputs, or start the daemon.")
    ledger = Ledger(path)
    try:
        return act(ledger, time.time())
    finally:
        ledger.close()
