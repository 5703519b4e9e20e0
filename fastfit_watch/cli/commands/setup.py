"""Commands for setting a machine up: doctor, service, models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastfit_watch.cli.commands.arguments import (
    Arguments,
    add_command,
    add_engine_options,
    add_group,
    read_config,
)
from fastfit_watch.system.exit_codes import ExitCode


def add_doctor(commands: Any) -> None:
    """fastfit-watch doctor."""
    parser = add_command(commands, doctor)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--uploader", metavar="NAME", help="account of somebody who uploads")
    add_engine_options(parser)


def doctor(arguments: Arguments) -> int:
    """Check whether this machine can do the work: GPU, weights, folders, disk, clock, service. Changes nothing.

    One line for each check: ok, warn or fail, with the fix. Run it as the user of the daemon, and name somebody who
    uploads: it then says what that account can and cannot do.

    example: fastfit-watch doctor --config configs/default.yaml --uploader anna
    example: sudo -u fastfit fastfit-watch doctor --json
    """
    from fastfit_watch.cli.doctor.show import examine_machine

    return examine_machine(lambda: read_config(arguments), uploader=arguments.uploader, as_json=arguments.json)


def add_service(commands: Any) -> None:
    """fastfit-watch service."""
    parser = add_command(commands, service)
    parser.add_argument("--container", action="store_true", help="the start line for a box without systemd")
    parser.add_argument("--per-device", action="store_true", help="a template: a daemon and spool for each GPU")
    parser.add_argument("--user", metavar="NAME", default="fastfit", help="account of the daemon (default: fastfit)")
    group = "fastfit-upload"
    parser.add_argument("--group", metavar="NAME", default=group, help=f"group of those who upload (default: {group})")
    text = "a folder more that it may write to, such as one that your hook fills; may be repeated"
    parser.add_argument("--writable", metavar="FOLDER", type=Path, action="append", default=[], help=text)
    add_engine_options(parser)


def service(arguments: Arguments) -> int:
    """Print the systemd unit for this machine, led by the commands that install it, or a start line for containers.

    It fits the folder it is printed in: that becomes the working directory. 'run' gets the options. The unit may write
    to the folders of the settings alone, metrics.textfile's included, and to those named with --writable.

    example: cd /srv/fastfit && fastfit-watch service > /etc/systemd/system/fastfit-watch.service
    example: fastfit-watch service --container
    """
    from fastfit_watch.cli.service_unit import inspect_installation, write_start_line, write_unit

    keys = ("config", "inputs", "outputs", "bundle", "models", "device")
    given = {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    for key in {"config", "models", *(["bundle"] if "/" in given.get("bundle", "") else [])} & given.keys():
        given[key] = Path(given[key]).absolute()
    installation = inspect_installation(
        read_config(arguments),
        [word for key, value in given.items() for word in (f"--{key}", str(value))],
        user=arguments.user,
        group=arguments.group,
        per_device=arguments.per_device,
        home=Path.cwd(),
        writable=[folder.absolute() for folder in arguments.writable],
    )
    print((write_start_line if arguments.container else write_unit)(installation), end="")
    return ExitCode.OK


def add_models(commands: Any) -> None:
    """fastfit-watch models pull, verify and list."""
    actions = add_group(commands, "models", "Fetch, check and list the weights.", "fastfit-watch models pull")
    pull, verify, listed = (
        add_command(actions, command, command.__name__.removeprefix("models_"))
        for command in (models_pull, models_verify, models_list)
    )
    for action in (pull, verify, listed):
        action.add_argument("--models", metavar="FOLDER", help="folder of downloaded bundles (default: Models)")
    pull.add_argument("names", metavar="NAME", nargs="*", help="bundle to fetch (default: the configured one)")
    pull.add_argument("--update", action="store_true", help="take the present revision instead of the pinned one")
    verify.add_argument("names", metavar="NAME", nargs="*", help="bundle to check (default: all that are there)")
    listed.add_argument("--json", action="store_true", help="print everything as JSON")


def models_pull(arguments: Arguments) -> int:
    """Fetch the weights of a bundle, or mend it: what is missing or damaged is fetched, what is whole is kept.

    A fetch that broke off goes on where it was. The revision of the first one is pinned; --update takes the present
    one. HF_TOKEN is a token for private and gated repositories, HF_ENDPOINT a mirror. 'run' and 'try-on' fetch a bundle
    that was never there by themselves.

    example: fastfit-watch models pull
    example: fastfit-watch models pull fastfit-sr-1024 --models /data/Models
    """
    from fastfit_watch.cli.models import pull_bundles
    from fastfit_watch.cli.progress_bar import DownloadReporter

    config = read_config(arguments)
    pull_bundles(arguments.names or [config.bundle], config.models, DownloadReporter(), update=arguments.update)
    return ExitCode.OK


def models_verify(arguments: Arguments) -> int:
    """Read every byte of the fetched bundles, and name files that are missing, cut off or damaged. Needs no network.

    example: fastfit-watch models verify
    """
    from fastfit_watch.cli.models import verify_bundles
    from fastfit_watch.cli.progress_bar import DownloadReporter

    verify_bundles(arguments.names, read_config(arguments).models, DownloadReporter())
    return ExitCode.OK


def models_list(arguments: Arguments) -> int:
    """Show every bundle: whether it is complete, what it takes, its revision and licence. Needs no network.

    here: on this disk now. disk, card: what the bundle takes at most, about, also before it is fetched.

    example: fastfit-watch models list
    example: fastfit-watch models list --json
    """
    from fastfit_watch.cli.models import list_bundles

    list_bundles(read_config(arguments).models, as_json=arguments.json)
    return ExitCode.OK


def add_completion(commands: Any) -> None:
    """fastfit-watch completion."""
    add_command(commands, completion).add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")


def completion(arguments: Arguments) -> int:
    """Print the script by which a shell completes commands, options and names of jobs at TAB.

    example: fastfit-watch completion bash > ~/.local/share/bash-completion/completions/fastfit-watch
    example: fastfit-watch completion zsh > "${fpath[1]}/_fastfit-watch"
    example: fastfit-watch completion fish > ~/.config/fish/completions/fastfit-watch.fish
    """
    from fastfit_watch.cli.completion import script

    print(script(arguments.shell), end="")
    return ExitCode.OK
