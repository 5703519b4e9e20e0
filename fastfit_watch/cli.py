"""The command line: one function a command, its help in its docstring, its imports inside."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from fastfit_watch.look import Category, Framing, MaskMode, Preset, SamplingOptions
from fastfit_watch.options import OPTIONS, Whole

if TYPE_CHECKING:
    from fastfit_watch.config import Config
    from fastfit_watch.ledger import Ledger
    from fastfit_watch.places import Places

_CODES: tuple[tuple[type[FastFitError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (UploadError, ExitCode.INVALID),
    (StorageError, ExitCode.STORAGE),
    (EngineError, ExitCode.ENGINE),
    (BundleError, ExitCode.ENGINE),
)
_DEFAULTS = SamplingOptions()
_ASK = "__complete"  # how a shell asks, see completion.py
_Arguments = argparse.Namespace
_Changed = TypeVar("_Changed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors people can mend are lines on standard error, no traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if words[:1] == [_ASK]:
        from fastfit_watch.completion import answer_quietly

        print("\n".join(answer_quietly(parser, words[1:])))
        return ExitCode.OK
    settings = parser.parse_args(words)
    try:
        code = int(settings.command(settings))
        sys.stdout.flush()
        return code
    except FastFitError as error:
        print(_for_reader("".join(f"error: {line}\n" for line in str(error).splitlines())), end="", file=sys.stderr)
        return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more, as in `status | head`. Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK


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
                steps=arguments.steps or Preset(arguments.preset).steps,
                seed=arguments.seed,
                guidance=arguments.guidance,
                mask=MaskMode(arguments.mask),
                framing=Framing(arguments.framing),
                format=oneshot.format_of(arguments.output),
                preset=Preset(arguments.preset),
            ),
            bundle=config.bundle,
            models=config.models,
            device=config.engine.devices[0],
            finish=config.marks.finish,
        )
    )
    return ExitCode.OK


def reproduce(arguments: _Arguments) -> int:
    """Make a picture again from what it says of itself, and tell whether every byte is the same.

    The inputs are found by their hashes: in the folders of --from and all below them, else in the copies that the
    daemon keeps. Ends with exit code 0 if the picture is the same, and with 7 and what differs if it is not.

    example: fastfit-watch reproduce outputs/spring/anna.casual.png
    example: fastfit-watch reproduce anna.casual.png --from spring/ --device cpu --output again.png
    """
    from fastfit_watch.reproduce import Wish, input_folders
    from fastfit_watch.reproduce import reproduce as make_again

    config = _read_config(arguments)
    folders = tuple(arguments.folders or input_folders(_find_places(arguments)))
    device = config.engine.devices[0]
    return make_again(
        Wish(arguments.image, folders, config.models, device, bundle=arguments.bundle, output=arguments.output)
    )


def check(arguments: _Arguments) -> int:
    """Find every mistake of job folders before they are uploaded. Needs no GPU and changes nothing.

    example: fastfit-watch check spring/ summer/
    """
    from fastfit_watch.check import check_folders
    from fastfit_watch.limits import Limits

    return check_folders(arguments.jobs, _read_config(arguments).limits if arguments.config else Limits())


def status(arguments: _Arguments) -> int:
    """Show what the daemon is doing, and every job with its state, pictures made, time left, and reason.

    Reads the disk only: works while the daemon runs, and when it does not. The time left follows from the measured
    seconds of a step and what stands before the job. --json prints everything; docs/status.schema.json describes it.
    --follow draws again every second until Ctrl-C, and prints what has changed where it goes into a pipe or a file.

    example: fastfit-watch status
    example: fastfit-watch status --follow
    example: fastfit-watch status --json
    """
    from fastfit_watch.status import show

    return show(_find_places(arguments), as_json=arguments.json, follow=arguments.follow)


def logs(arguments: _Arguments) -> int:
    """Show a job's log, or without JOB the daemon's own, and go on with what is added until Ctrl-C.

    Following a job ends by itself once the job has.

    example: fastfit-watch logs spring
    example: fastfit-watch logs --no-follow --lines 20
    """
    from fastfit_watch.tail import show_log

    return show_log(_find_places(arguments), arguments.job, lines=arguments.lines, follow=arguments.follow)


def webhook_replay(arguments: _Arguments) -> int:
    """Send the messages about a job again, in their order. The daemon does it, at once or after its next start.

    A receiver knows a message that it had before by its FastFit-Delivery header.

    example: fastfit-watch webhook replay spring --config settings.yaml
    """
    from fastfit_watch.mailroom import replay

    count = replay(_read_config(arguments), arguments.job, time.time())
    print(f"{arguments.job}: {count} message{'' if count == 1 else 's'} to be sent again")
    return ExitCode.OK


def webhook_list(arguments: _Arguments) -> int:
    """List the newest messages: when, about which job, and what became of each.

    example: fastfit-watch webhook list
    """
    from fastfit_watch.mailroom import describe

    print("\n".join(describe(_find_places(arguments).ledger)))
    return ExitCode.OK


def completion(arguments: _Arguments) -> int:
    """Print the script by which a shell completes commands, options and names of jobs at TAB.

    example: fastfit-watch completion bash > ~/.local/share/bash-completion/completions/fastfit-watch
    example: fastfit-watch completion zsh > "${fpath[1]}/_fastfit-watch"
    example: fastfit-watch completion fish > ~/.config/fish/completions/fastfit-watch.fish
    """
    from fastfit_watch.completion import script

    print(script(arguments.shell), end="")
    return ExitCode.OK


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


def priority(arguments: _Arguments) -> int:
    """Serve a job earlier or later than its turn.

    urgent: before everyone. high: before other jobs of the same uploader. low: when nothing else waits. The manifest
    may say 'priority: high' or 'priority: low' too; what is said here weighs more.

    example: fastfit-watch priority spring urgent
    """
    from fastfit_watch.job import Priority

    wanted = Priority[arguments.priority.upper()]
    job = _change(arguments, lambda ledger, now_s: ledger.prioritise(arguments.job, wanted, now_s))
    print(f"{job.id}: {job.status.value}, priority {job.priority.word}")
    return ExitCode.OK


def release(arguments: _Arguments) -> int:
    """Show the pictures of a job that the content filter withheld, release them into its results, or discard them.

    Without LOOK it lists them, with the reason and the file, so that someone can look at them first.

    example: fastfit-watch release spring
    example: fastfit-watch release spring anna.casual
    example: fastfit-watch release spring anna.casual --discard
    """
    from fastfit_watch import release as withheld

    places = _find_places(arguments)

    def act(ledger: Ledger, now_s: float) -> None:
        del now_s
        if arguments.looks:
            withheld.judge(places, ledger, arguments.job, arguments.looks, discard=arguments.discard)
        else:
            withheld.show(places, ledger, arguments.job)

    _change(arguments, act)
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


def bench(arguments: _Arguments) -> int:
    """Measure this machine: pictures an hour, seconds by stage, and how near its limits it comes.

    Without --bundle it draws seeded weights of the released size: nothing is downloaded, and the times are those of the
    real ones. Everything is timed beside a plain form of the published order of work, on the same weights. Writes
    bench.json and bench.svg into --output.

    example: fastfit-watch bench
    example: fastfit-watch bench --small --device cpu --steps 2 --people 2
    """
    import json

    from fastfit_watch.bench.run import PARTS, Bench, BenchOptions
    from fastfit_watch.devices import find_devices
    from fastfit_watch.models import Console, provide_bundle

    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        raise ConfigError(f"bench has no part {', '.join(sorted(unknown))}.", hint=f"Known: {', '.join(PARTS)}.")
    config = _read_config(arguments)
    bundle = provide_bundle(arguments.bundle, config.models, Console()) if arguments.bundle else None
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


def models_pull(arguments: _Arguments) -> int:
    """Fetch the weights of a bundle, or mend it: what is missing or damaged is fetched, what is whole is kept.

    A fetch that broke off goes on where it was. The revision of the first one is pinned; --update takes the present
    one. HF_TOKEN is a token for private and gated repositories, HF_ENDPOINT a mirror. 'run' and 'try-on' fetch a bundle
    that was never there by themselves.

    example: fastfit-watch models pull
    example: fastfit-watch models pull fastfit-sr-1024 --models /data/Models
    """
    from fastfit_watch.models import Console, pull_bundles

    config = _read_config(arguments)
    pull_bundles(arguments.names or [config.bundle], config.models, Console(), update=arguments.update)
    return ExitCode.OK


def models_verify(arguments: _Arguments) -> int:
    """Read every byte of the fetched bundles, and name files that are missing, cut off or damaged. Needs no network.

    example: fastfit-watch models verify
    """
    from fastfit_watch.models import Console, verify_bundles

    verify_bundles(arguments.names, _read_config(arguments).models, Console())
    return ExitCode.OK


def models_list(arguments: _Arguments) -> int:
    """Show every bundle: whether it is complete, its size, revision and licence. Needs no network.

    example: fastfit-watch models list
    example: fastfit-watch models list --json
    """
    from fastfit_watch.models import list_bundles

    list_bundles(_read_config(arguments).models, as_json=arguments.json)
    return ExitCode.OK


def doctor(arguments: _Arguments) -> int:
    """Check whether this machine can do the work: GPU, weights, folders, disk, clock, service. Changes nothing.

    One line for each check: ok, warn or fail, with the fix. Run it as the user of the daemon, and name somebody who
    uploads: it then says what that account can and cannot do.

    example: fastfit-watch doctor --config configs/default.yaml --uploader anna
    example: sudo -u fastfit fastfit-watch doctor --json
    """
    from fastfit_watch.doctor.show import examine_machine

    return examine_machine(lambda: _read_config(arguments), uploader=arguments.uploader, as_json=arguments.json)


def service(arguments: _Arguments) -> int:
    """Print the systemd unit for this machine, led by the commands that install it, or a start line for containers.

    It fits the folder it is printed in: that becomes the working directory. Options are handed on to 'run'.

    example: cd /srv/fastfit && fastfit-watch service > /etc/systemd/system/fastfit-watch.service
    example: fastfit-watch service --container
    """
    from fastfit_watch.service import survey, write_start_line, write_unit

    keys = ("config", "inputs", "outputs", "bundle", "models", "device")
    given = {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    for key in {"config", "models", *(["bundle"] if "/" in given.get("bundle", "") else [])} & given.keys():
        given[key] = Path(given[key]).absolute()
    installation = survey(
        _read_config(arguments),
        [word for key, value in given.items() for word in (f"--{key}", str(value))],
        user=arguments.user,
        group=arguments.group,
        per_device=arguments.per_device,
        home=Path.cwd(),
    )
    print((write_start_line if arguments.container else write_unit)(installation), end="")
    return ExitCode.OK


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
    _add_reproduce(commands)
    _add(commands, check).add_argument("jobs", metavar="JOB", nargs="+", type=Path, help="job folder to check")
    shown = _add(commands, status)
    shown.add_argument("--json", action="store_true", help="print everything as JSON")
    shown.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    log = _add(commands, logs)
    log.add_argument("job", metavar="JOB", nargs="?", help="name of a job, as 'status' shows it (default: the daemon)")
    log.add_argument("--lines", metavar="N", type=_lines, default=200, help="show at most the last N (default: 200)")
    log.add_argument("--no-follow", dest="follow", action="store_false", help="end after what is there now")
    for command in (retry, cancel):
        _add(commands, command).add_argument("job", metavar="JOB", help="name of the job, as 'status' shows it")
    ranked = _add(commands, priority)
    ranked.add_argument("job", metavar="JOB", help="name of the job, as 'status' shows it")
    ranked.add_argument("priority", choices=("urgent", "high", "normal", "low"))
    released = _add(commands, release)
    released.add_argument("job", metavar="JOB", help="name of the job, as 'status' shows it")
    released.add_argument("looks", metavar="LOOK", nargs="*", help="such as anna.casual (default: list all)")
    released.add_argument("--discard", action="store_true", help="remove the pictures for good instead")
    _add(commands, pause).add_argument("--reason", default="paused by request", help="shown to everyone who asks")
    _add(commands, resume)
    _add_doctor(commands)
    _add_service(commands)
    _add(commands, demo)
    _add_bench(commands)
    _add_models(commands)
    about = "See, and send again, the messages about finished jobs."
    example = "example: fastfit-watch webhook list"
    webhook = commands.add_parser("webhook", help=about, description=about, epilog=example)
    letters = webhook.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(letters, webhook_replay, "replay").add_argument("job", metavar="JOB", help="name of the job")
    _add(letters, webhook_list, "list")
    _add(commands, completion).add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    return parser


def _add(commands: Any, command: Callable[[_Arguments], int], name: str = "") -> argparse.ArgumentParser:
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


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="NAME", help="weights: fastfit-mr-1024, fastfit-sr-1024, mini, or a path")
    parser.add_argument("--models", metavar="FOLDER", help="folder of downloaded bundles (default: Models)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda:0, ... (default: auto)")


def _add_run(commands: Any) -> None:
    parser = _add(commands, run)
    parser.add_argument("--once", action="store_true", help="process what is complete, then end")
    parser.add_argument("--quiet", action="store_true", help="only errors on standard error; the log file has all")
    _add_engine_options(parser)


def _add_models(commands: Any) -> None:
    about = "Fetch, check and list the weights."
    example = "example: fastfit-watch models pull"
    parser = commands.add_parser("models", help=about, description=about, epilog=example)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    pull, verify, listed = (
        _add(actions, command, command.__name__.removeprefix("models_"))
        for command in (models_pull, models_verify, models_list)
    )
    for action in (pull, verify, listed):
        action.add_argument("--models", metavar="FOLDER", help="folder of downloaded bundles (default: Models)")
    pull.add_argument("names", metavar="NAME", nargs="*", help="bundle to fetch (default: the configured one)")
    pull.add_argument("--update", action="store_true", help="take the present revision instead of the pinned one")
    verify.add_argument("names", metavar="NAME", nargs="*", help="bundle to check (default: all that are there)")
    listed.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_doctor(commands: Any) -> None:
    parser = _add(commands, doctor)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--uploader", metavar="NAME", help="account of somebody who uploads")
    _add_engine_options(parser)


def _add_service(commands: Any) -> None:
    parser = _add(commands, service)
    parser.add_argument("--container", action="store_true", help="the start line for a box without systemd")
    parser.add_argument("--per-device", action="store_true", help="a template: a daemon and spool for each GPU")
    parser.add_argument("--user", metavar="NAME", default="fastfit", help="account of the daemon (default: fastfit)")
    group = "fastfit-upload"
    parser.add_argument("--group", metavar="NAME", default=group, help=f"group of those who upload (default: {group})")
    _add_engine_options(parser)


def _add_try_on(commands: Any) -> None:
    parser = _add(commands, try_on)
    parser.add_argument("--person", type=Path, required=True, metavar="FILE", help="the photograph to dress")
    for category in Category:
        parser.add_argument(f"--{category.value}", type=Path, metavar="FILE", help=f"{category.value} to wear")
    output = Path("output.png")
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help=f"the result (default: {output})")
    steps, seed = _option("steps"), _option("seed")
    presets = [preset.value for preset in Preset]
    parser.add_argument("--preset", choices=presets, default=_DEFAULTS.preset.value, help="exact, or a quicker way")
    parser.add_argument("--steps", type=steps, help="denoising steps, 1 to 200 (default: the preset's: 30, 12, 6)")
    parser.add_argument("--seed", type=seed, help="for the same picture again (default: drawn at random, printed)")
    parser.add_argument(
        "--guidance", type=_option("guidance"), default=_DEFAULTS.guidance, help="1 to 20; 1 = off (default: 2.5)"
    )
    modes, framings = [mode.value for mode in MaskMode], [framing.value for framing in Framing]
    parser.add_argument("--mask", choices=modes, default=_DEFAULTS.mask.value, help="repaint all, or only what is worn")
    parser.add_argument("--framing", choices=framings, default=_DEFAULTS.framing.value, help="of the result")
    _add_engine_options(parser)


def _add_bench(commands: Any) -> None:
    parser = _add(commands, bench)
    parser.add_argument("--small", action="store_true", help="tiny networks, to try the command itself")
    parser.add_argument("--steps", type=_option("steps"), default=_DEFAULTS.steps, help="denoising steps (default: 30)")
    parser.add_argument("--people", type=_lines, default=8, help="pictures of the larger jobs (default: 8)")
    parser.add_argument("--parts", nargs="*", default=(), metavar="PART", help="limits, singles, steps, presets, ...")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write bench.json and bench.svg here")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, last")
    _add_engine_options(parser)


def _add_reproduce(commands: Any) -> None:
    parser = _add(commands, reproduce)
    parser.add_argument("image", metavar="IMAGE", type=Path, help="a picture that this program made")
    parser.add_argument(
        "--from", dest="folders", action="append", type=Path, metavar="FOLDER", help="where the inputs are; repeatable"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep the new picture here")
    _add_engine_options(parser)


def _lines(text: str) -> int:
    lines = Whole(0, 10**6)
    count = lines.read(text)
    if count is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not {lines.expected}")
    return count


def _option(name: str) -> Callable[[str], Any]:
    """Reads an option as the manifest does."""
    option = OPTIONS[name]

    def read(text: str) -> Any:
        value = option.value.read(text)
        if value is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not {option.value.expected}")
        return value

    return read


def _for_reader(text: str) -> str:
    """Lines for standard error; in the journal each with its priority."""
    if "JOURNAL_STREAM" not in os.environ:
        return text
    from fastfit_watch.logs import is_journal, with_priority

    return with_priority("ERROR", text) if is_journal(sys.stderr) else text


def _read_config(arguments: _Arguments) -> Config:
    """The settings file, then what the command line says."""
    from fastfit_watch.config import load_config

    given = {key: getattr(arguments, key, None) for key in ("inputs", "outputs", "bundle", "models")}
    config = load_config(arguments.config, {key: value for key, value in given.items() if value is not None})
    changes: dict[str, Any] = {}
    if (device := getattr(arguments, "device", None)) is not None:
        changes["engine"] = config.engine.model_copy(update={"devices": (device,)})
    if getattr(arguments, "quiet", False):
        changes["log"] = config.log.model_copy(update={"console_level": "ERROR"})
    return config.model_copy(update=changes)


def _find_places(arguments: _Arguments) -> Places:
    """Where things lie. Settings are read only where a file of them is named: it costs more than all else together."""
    from fastfit_watch.places import Places

    if arguments.config is not None:
        config = _read_config(arguments)
        return Places(config.inputs, config.outputs, config.logs)
    given = {key: Path(folder) for key in ("inputs", "outputs") if (folder := getattr(arguments, key)) is not None}
    return replace(Places(), **given)


def _change(arguments: _Arguments, act: Callable[[Ledger, float], _Changed]) -> _Changed:
    """Change the ledger; a daemon that runs notices within a second, one that does not at its start."""
    from fastfit_watch.ledger import Ledger

    path = _find_places(arguments).ledger
    if not path.exists():
        raise ConfigError(f"There is no ledger at {path}.", hint="Name the folder with --inputs, or start the daemon.")
    ledger = Ledger(path)
    try:
        return act(ledger, time.time())
    finally:
        ledger.close()
