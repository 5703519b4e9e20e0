"""What all commands share: their entry in the parser, the settings they run with, and the ledger they change."""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.domain.options import OPTIONS, Whole

if TYPE_CHECKING:
    from fastfit_watch.config.paths import Paths
    from fastfit_watch.config.settings import Config
    from fastfit_watch.storage.ledger import Ledger

Arguments = argparse.Namespace
Changed = TypeVar("Changed")


def add_command(commands: Any, command: Callable[[Arguments], int], name: str = "") -> argparse.ArgumentParser:
    """A command with the options that all share; its help is its docstring. name: where it is not the function's."""
    text = inspect.getdoc(command) or ""
    parser: argparse.ArgumentParser = commands.add_parser(
        name or command.__name__.replace("_", "-"),
        help=text.splitlines()[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; configs/default.yaml lists them all")
    parser.add_argument("--inputs", metavar="FOLDER", help="folder that people upload into (default: inputs)")
    parser.add_argument("--outputs", metavar="FOLDER", help="folder for results (default: outputs)")
    return parser


def add_group(commands: Any, name: str, about: str, example: str) -> Any:
    """A command that consists of commands, such as 'models pull'; returns what these are added to."""
    parser = commands.add_parser(name, help=about, description=about, epilog=f"example: {example}")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """--bundle, --models and --device."""
    parser.add_argument("--bundle", metavar="NAME", help="weights: fastfit-mr-1024, fastfit-sr-1024, mini, or a path")
    parser.add_argument("--models", metavar="FOLDER", help="folder of downloaded bundles (default: Models)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda:0, ... (default: auto)")


def read_count(text: str) -> int:
    """A whole number from 0 on, as an argument. Raises ArgumentTypeError."""
    lines = Whole(0, 10**6)
    count = lines.read(text)
    if count is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not {lines.expected}")
    return count


def reader_of(name: str) -> Callable[[str], Any]:
    """What reads an option as the manifest does."""
    option = OPTIONS[name]

    def read(text: str) -> Any:
        value = option.value.read(text)
        if value is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not {option.value.expected}")
        return value

    return read


def read_config(arguments: Arguments) -> Config:
    """The settings file, then what the command line says."""
    from fastfit_watch.config.settings import load_config

    given = {key: getattr(arguments, key, None) for key in ("inputs", "outputs", "bundle", "models")}
    config = load_config(arguments.config, {key: value for key, value in given.items() if value is not None})
    changes: dict[str, Any] = {}
    if (device := getattr(arguments, "device", None)) is not None:
        changes["engine"] = config.engine.model_copy(update={"devices": (device,)})
    if getattr(arguments, "quiet", False):
        changes["log"] = config.log.model_copy(update={"console_level": "ERROR"})
    return config.model_copy(update=changes)


def find_places(arguments: Arguments) -> Paths:
    """Where things lie. Settings are read only where a file of them is named: it costs more than all else together."""
    from fastfit_watch.config.paths import Paths

    if arguments.config is not None:
        config = read_config(arguments)
        return Paths(config.inputs, config.outputs, config.logs)
    given = {key: Path(folder) for key in ("inputs", "outputs") if (folder := getattr(arguments, key)) is not None}
    return replace(Paths(), **given)


def change_ledger(arguments: Arguments, act: Callable[[Ledger, float], Changed]) -> Changed:
    """Change the ledger; a daemon that runs notices within a second, one that does not at its start."""
    from fastfit_watch.storage.ledger import Ledger
    from fastfit_watch.storage.spool import SpoolPaths

    path = SpoolPaths(find_places(arguments).inputs).ledger
    if not path.exists():
        raise ConfigError(f"There is no ledger at {path}.", hint="Name the folder with --inputs, or start the daemon.")
    ledger = Ledger(path)
    try:
        return act(ledger, time.time())
    finally:
        ledger.close()
