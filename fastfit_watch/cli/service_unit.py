"""The `service` command: the systemd unit for this machine, or the start line for a box without systemd.

`systemd/*.service` are what `service` prints for the conventional places; a test keeps them so.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastfit_watch.config.settings import Config
from fastfit_watch.domain.errors import ConfigError
from fastfit_watch.storage.spool import SpoolPaths
from fastfit_watch.system.devices import list_gpus

UNIT = "fastfit-watch.service"
TEMPLATE = "fastfit-watch@.service"
_DEV = Path("/dev")
_UNIT_FOLDER = Path("/etc/systemd/system")
_SCRATCH = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - where a service with PrivateTmp sees folders of its own
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


@dataclass(frozen=True)
class Installation:
    """One daemon on one machine, or one for each GPU. Paths are absolute; in a template they may hold `%i`, the GPU.

    Attributes
    ----------
    program : the command and its first arguments, such as `/opt/fastfit-watch/.venv/bin/fastfit-watch`.
    options : what follows the name of the command, such as `--config FILE`.
    user, group : the account it runs as, and the group whose members may upload.
    home : the working directory. inputs, outputs : shared with the people who upload. private : its other folders.
    reported : folders beyond these that the settings or `--writable` have it write to. Others read there.
    read : files and programs outside its folders that the settings name.
    writable : what was given as `--writable`.
    device_groups : groups that the device files of the GPU ask for.
    has_gpu : is there one, or will there be? found : what was found, for people; empty where nobody looked.
    per_device : is this a template, one instance for each GPU?
    make_user, make_group : do these accounts still have to be made?
    interpreter : where Python itself lies, if it is known.
    config, config_source : a settings file that still has to be made, and what it is made from.
    """

    program: tuple[str, ...]
    options: tuple[str, ...]
    user: str
    group: str
    home: Path
    inputs: Path
    outputs: Path
    private: tuple[Path, ...]
    reported: tuple[Path, ...] = ()
    read: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    config: Path | None = None
    config_source: Path | None = None
    device_groups: tuple[str, ...] = ()
    has_gpu: bool = True
    per_device: bool = False
    make_user: bool = True
    make_group: bool = True
    found: str = ""
    interpreter: Path | None = None

    @property
    def unit(self) -> str:
        """The name of the unit's file."""
        return TEMPLATE if self.per_device else UNIT


CONVENTIONAL = Installation(
    program=("/opt/fastfit-watch/.venv/bin/fastfit-watch",),
    options=("--config", "/etc/fastfit-watch/config.yaml"),
    user="fastfit",
    group="fastfit-upload",
    home=Path("/srv/fastfit"),
    inputs=Path("/srv/fastfit/inputs"),
    outputs=Path("/srv/fastfit/outputs"),
    private=(Path("/srv/fastfit/logs"), Path("/srv/fastfit/Models")),
    config=Path("/etc/fastfit-watch/config.yaml"),
    config_source=Path("/opt/fastfit-watch/configs/default.yaml"),
)
CONVENTIONAL_PER_DEVICE = replace(
    CONVENTIONAL,
    options=(*CONVENTIONAL.options, "--models", "/srv/fastfit/Models"),
    home=Path("/srv/fastfit/%i"),
    inputs=Path("/srv/fastfit/%i/inputs"),
    outputs=Path("/srv/fastfit/%i/outputs"),
    private=(Path("/srv/fastfit/%i/logs"), Path("/srv/fastfit/Models")),
    per_device=True,
)


def inspect_installation(
    config: Config,
    options: Sequence[str],
    *,
    user: str,
    group: str,
    per_device: bool,
    home: Path,
    writable: Sequence[Path] = (),
    dev: Path = _DEV,
) -> Installation:
    """Describe the installation on this machine of a daemon with these settings that works in `home`.

    `run` gets `options`; `writable` are further folders that it or its hook writes to; `dev` is the folder of device
    files. Raises ConfigError if instances for several devices would share a spool.
    """
    gpus = list_gpus()
    place = home / "%i" if per_device else home
    folders = {"inputs": config.inputs, "outputs": config.outputs, "logs": config.logs}
    shared = [f"'{name}'" for name, path in folders.items() if path.is_absolute()]
    if per_device and shared:
        raise ConfigError(
            f"Every instance needs folders of its own, but the settings say where {', '.join(shared)} must be.",
            hint="Make them relative, or leave --per-device away: one daemon serves all GPUs from one queue.",
        )
    inputs, outputs, logs = (place / path for path in folders.values())
    models = home / config.models
    return Installation(
        program=_program(),
        options=(*options, "--models", str(models)) if per_device and "--models" not in options else tuple(options),
        user=user,
        group=group,
        home=place,
        inputs=inputs,
        outputs=outputs,
        private=(logs, models),
        reported=_reported(config, place, writable),
        read=tuple(place / path for path in _named_files(config)),
        writable=tuple(writable),
        device_groups=_device_groups(dev),
        has_gpu=bool(gpus),
        per_device=per_device,
        make_user=not _exists(pwd.getpwnam, user),
        make_group=not _exists(grp.getgrnam, group),
        interpreter=Path(sys.executable).resolve(),
        found=", ".join(gpus)
        or "no NVIDIA GPU, so the unit has none either. Print it again once the driver is installed",
    )


def write_unit(installation: Installation) -> str:
    """The unit, led by the commands that install it. Raises ConfigError if systemd could not start the program."""
    head = [*_cautions(installation), "Install, as root:", *(f"  {line}" for line in install_commands(installation))]
    comments = "".join(f"# {line}".rstrip() + "\n" for line in head)
    return comments + _UNIT.format(
        what="GPU %i" if installation.per_device else "uploaded job folders",
        mounts=" ".join(_word(installation, str(path)) for path in (installation.home, *_writable(installation))),
        wants=_WANTS_GPU if installation.has_gpu else "network-online.target",
        user=installation.user,
        group=installation.group,
        instance=_INSTANCE if installation.per_device else "",
        doctor=_command(installation, "doctor"),
        run=_command(installation, "run"),
        home=_specifiers(installation, str(installation.home)),
        writable=" ".join(_word(installation, str(path)) for path in _writable(installation)),
        devices=_gpu_lines(installation) if installation.has_gpu else "PrivateDevices=yes\nDevicePolicy=closed\n",
        jit="off: torch and Triton compile at run time",
        protect_home="read-only" if _is_below(installation, _HOMES) else "yes",
        private_tmp="no" if _is_below(installation, _SCRATCH) else "yes",
    )


def install_commands(installation: Installation) -> list[str]:
    """What to type, as root, to make the accounts and folders and to start the service."""
    user, group = installation.user, installation.group
    home = Path(str(installation.home).replace("/%i", ""))
    lines = []
    if installation.make_group:
        lines.append(shlex.join(["groupadd", "--system", group]))
    if installation.make_user:
        account = ["--system", "--user-group", "--home-dir", str(home), "--shell", "/usr/sbin/nologin", user]
        lines.append(shlex.join(["useradd", *account]))
    shared = ["install", "-d", "-o", user, "-g", group, "-m"]
    for mode, paths in (("2770", [installation.inputs]), ("2750", [installation.outputs])):
        lines.append(shlex.join([*shared, mode, *(_for_first(installation, path) for path in paths)]))
    lines.append(shlex.join([*shared, "0700", *(_for_first(installation, path) for path in installation.private)]))
    for folder in (Path(_for_first(installation, path)) for path in installation.reported):
        # A folder that exists, such as node_exporter's, keeps its owner. Debian has setfacl in the package acl.
        give = ["setfacl", "-m", f"u:{user}:rwx"] if folder.is_dir() else [*shared, "0755"]
        lines.append(shlex.join([*give, str(folder)]))
    if installation.config and installation.config_source:
        source, target = str(installation.config_source), str(installation.config)
        lines.append(shlex.join(["install", "-D", "-o", user, "-m", "0400", source, target]))
    name = installation.unit.replace("@.", "@0.") if installation.per_device else installation.unit
    service = shlex.join([*installation.program, "service", *_service_options(installation)])
    lines.append(f"cd {shlex.quote(str(home))} && {service} > {_UNIT_FOLDER / installation.unit}")
    lines.append(f"systemctl daemon-reload && systemctl enable --now {name.removesuffix('.service')}")
    lines.append(f"usermod -aG {shlex.quote(group)} NAME      # for everyone who uploads")
    return lines


def _service_options(installation: Installation) -> list[str]:
    """The options with which `service` prints this unit again in the folder `home`."""
    accounts = {
        "--user": (installation.user, CONVENTIONAL.user),
        "--group": (installation.group, CONVENTIONAL.group),
    }
    chosen = [word for option, (name, usual) in accounts.items() if name != usual for word in (option, name)]
    chosen += [word for folder in installation.writable for word in ("--writable", str(folder))]
    return [*chosen, *(["--per-device"] if installation.per_device else []), *installation.options]


def write_start_line(installation: Installation) -> str:
    """For the on-start script of a box without systemd: starts the daemon in the background and keeps it running.

    It ends with the daemon where that was told to stop (0), or cannot run as it is set up (2). The daemon looks after
    its engine itself; this looks after the daemon.
    """
    run = shlex.join([*installation.program, "run", *installation.options, "--quiet"])
    loop = f"until {run}; do code=$?; [ $code = 2 ] && exit 2; sleep 10; done"
    home, lock = shlex.quote(str(installation.home)), shlex.quote(str(SpoolPaths(installation.inputs).lock))
    console = shlex.quote(str(installation.private[0] / "console.log"))
    return (
        "# In the box's on-start script. Every event is in logs/fastfit-watch.log, which is rotated;\n"
        "# console.log gets errors only.\n"
        f"mkdir -p {shlex.quote(str(installation.private[0]))} && cd {home} &&"
        f" setsid nohup sh -c {shlex.quote(loop)} </dev/null >>{console} 2>&1 &\n"
        "\n"
        f'# stop, after the look in hand:  kill -TERM "$(cat {lock})"\n'
        f'# read the settings again:       kill -HUP "$(cat {lock})"\n'
    )


def _cautions(installation: Installation) -> list[str]:
    """What keeps this unit from working here, if anything, and what was found."""
    lines = [f"Found here: {installation.found}."] if installation.found else []
    paths = (*_needed(installation), *_writable(installation))
    lines += [
        f"CAUTION: {path} lies in /root, which '{installation.user}' cannot enter. Move it to /opt or /srv."
        for path in paths
        if installation.user != "root" and path.is_relative_to("/root")
    ]
    return lines


def _needed(installation: Installation) -> Sequence[Path]:
    """What must be readable. A virtual environment often borrows its Python from somebody's home."""
    program = Path(installation.program[0])
    interpreter = () if installation.interpreter is None else (installation.interpreter,)
    return (program, *interpreter, *installation.read)


def _writable(installation: Installation) -> Sequence[Path]:
    paths = (installation.inputs, installation.outputs, *installation.private, *installation.reported)
    return tuple(dict.fromkeys(paths))


def _reported(config: Config, place: Path, writable: Sequence[Path]) -> tuple[Path, ...]:
    """The folder of Prometheus' text file, and those named on the command line."""
    textfile = config.metrics.textfile
    folders = [(place / textfile).parent] if textfile else []
    return tuple(dict.fromkeys((*folders, *(place / folder for folder in writable))))


def _named_files(config: Config) -> list[str]:
    """Files and programs that the settings name: certificate and key, the webhook's secret, the hook, the filter."""
    marks = config.marks
    paths = [marks.c2pa_certificate, marks.c2pa_key, config.webhook.secret_file, *config.hook.command[:1]]
    paths += [config.content_filter.model] if config.content_filter.model.startswith(("/", ".")) else []
    return [path for path in paths if "/" in path]


def _is_below(installation: Installation, folders: Sequence[Path]) -> bool:
    paths = (*_needed(installation), installation.home, *_writable(installation))
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _gpu_lines(installation: Installation) -> str:
    groups = f"SupplementaryGroups={' '.join(installation.device_groups)}\n" if installation.device_groups else ""
    return groups + _GPU


def _command(installation: Installation, command: str) -> str:
    program, *first = installation.program
    if set(program) & set("'\"\\"):
        raise ConfigError(
            f"systemd starts no program whose path has quotes or backslashes: {program}.", hint="Move it."
        )
    arguments = [*first, command, *installation.options]
    words = [program, *(argument.replace("$", "$$") for argument in arguments)]
    return " ".join(_word(installation, word) for word in words)


def _word(installation: Installation, text: str) -> str:
    """One word of a command line or a list of paths, as systemd.syntax(7) quotes it."""
    text = _specifiers(installation, text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if any(letter in text for letter in " \t'\"\\;") else text


def _specifiers(installation: Installation, text: str) -> str:
    escaped = text.replace("%", "%%")
    return escaped.replace("%%i", "%i") if installation.per_device else escaped


def _program() -> tuple[str, ...]:
    """The command beside this interpreter, or the interpreter with the module."""
    script = Path(sys.executable).parent / "fastfit-watch"
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-m", "fastfit_watch")


def _device_groups(dev: Path) -> tuple[str, ...]:
    """Groups without which the GPU's device files may not be opened."""
    files = [path.stat() for path in dev.glob("nvidia*") if not path.is_dir()]
    closed = {facts.st_gid for facts in files if not facts.st_mode & stat.S_IWOTH and facts.st_gid != 0}
    return tuple(sorted(grp.getgrgid(gid).gr_name for gid in closed))


def _exists(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True


def _for_first(installation: Installation, path: Path) -> str:
    return str(path).replace("%i", "0") if installation.per_device else str(path)


_WANTS_GPU = "network-online.target nvidia-persistenced.service modprobe@nvidia_uvm.service"
_INSTANCE = """\
# One instance for each GPU: `systemctl enable --now fastfit-watch@0 fastfit-watch@1`. Each has folders and a spool of
# its own, because a spool belongs to one daemon. For one queue over all GPUs use fastfit-watch.service instead.
Environment=CUDA_VISIBLE_DEVICES=%i
"""
_GPU = """\
# ProtectClock= below adds a DeviceAllow= of its own, and as soon as there is one, everything that is not named is shut
# out: without this line the GPU would be gone. Device files must exist before the start, since the service may not
# make them: that is what modprobe@nvidia_uvm and nvidia-persistenced are wanted for.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
"""
_UNIT = """\
[Unit]
Description=fastfit-watch: virtual try-on for {what}
Wants={wants}
After={wants}
RequiresMountsFor={mounts}
# Restart for ever: whoever leaves this alone for a year is not there to start it again.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
User={user}
Group={group}
# The group may write: members remove what they uploaded, and leave RETRY and CANCEL.
UMask=0007
WorkingDirectory={home}
{instance}# What it found goes to the journal; the start goes on whatever it is.
ExecStartPre=-{doctor}
ExecStart={run}
ExecReload=/bin/kill -HUP $MAINPID
ReadWritePaths={writable}
# What compilers and the driver keep between starts. They must be allowed to run code from there.
CacheDirectory=fastfit-watch
Environment=XDG_CACHE_HOME=%C/fastfit-watch TRITON_CACHE_DIR=%C/fastfit-watch/triton
Environment=TORCHINDUCTOR_CACHE_DIR=%C/fastfit-watch/inductor CUDA_CACHE_PATH=%C/fastfit-watch/nv

# READY comes when the model is loaded. Loading, and fetching weights for the first time, extends the limit as long as
# it moves. TimeoutStopSec is above the slowest look, since the one in hand is finished first; that extends it too.
TimeoutStartSec=900
TimeoutStopSec=300
TimeoutAbortSec=30
# Signs of life come only while the engines make progress or are idle.
WatchdogSec=120
# 2: the settings are wrong, or another daemon has the spool. Trying again cannot help.
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=2
# Stop signals are the daemon's to handle. An engine that the kernel ended for its memory is the daemon's to restart.
KillMode=mixed
OOMPolicy=continue
# A core file would hold people's photographs.
LimitCORE=0
# Every line has its own priority. One without is the last word of a crash.
SyslogLevel=err

{devices}# MemoryDenyWriteExecute= stays {jit}.
NoNewPrivileges=yes
# CAP_LEASE in both, with PrivateUsers=no, lets the daemon see that another account still has a file open for writing.
# Without it a folder counts as complete once it has been still for watch.settle_s.
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp={private_tmp}
PrivateMounts=yes
PrivateUsers=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RemoveIPC=yes
SystemCallArchitectures=native
# @resources stays in: libraries bind threads and memory to the CPUs near a GPU.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
