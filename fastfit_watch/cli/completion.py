"""Completion at the shell's TAB: three short scripts that ask this program, and what it answers.

The answer is read off the parser itself, so it cannot fall behind. Names of jobs come from the ledger.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastfit_watch.config.paths import Paths
from fastfit_watch.domain.errors import FastFitError
from fastfit_watch.storage.ledger import Ledger
from fastfit_watch.storage.spool import SpoolPaths

ASK = "__complete"
"""First argument by which the scripts ask; the line's words follow, the one to complete last."""

FILES = ":files"
"""Answered where the shell itself knows best."""

_NEWEST = 200
_BASH = """\
_fastfit_watch() {
    local IFS=$'\\n' answer
    COMPREPLY=()
    answer=$("${COMP_WORDS[0]}" ASK "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) || return
    if [[ $answer == :files ]]; then
        compopt -o default 2>/dev/null
        return
    fi
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(printf '%s\\n' "$answer"))
}
complete -F _fastfit_watch fastfit-watch
"""
_ZSH = """\
#compdef fastfit-watch
_fastfit_watch() {
    local answer
    answer=$("${words[1]}" ASK "${(@)words[2,CURRENT]}" 2>/dev/null) || return
    if [[ $answer == :files ]]; then
        _files
        return
    fi
    compadd -- "${(@f)answer}"
}
compdef _fastfit_watch fastfit-watch
"""
_FISH = """\
function __fastfit_watch
    set -l words (commandline -opc) (commandline -ct)
    set -l answer ($words[1] ASK $words[2..-1] 2>/dev/null)
    if test "$answer" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $answer
    end
end
complete -c fastfit-watch -f -a '(__fastfit_watch)'
"""
SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """The script for a shell of `SHELLS`."""
    return SHELLS[shell].replace("ASK", ASK)


def answer(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The candidates for the last of `words` (what stands after the program's name), or `FILES`."""
    *before, last = words or [""]
    commands = _commands(parser)
    name = next((word for word in before if word in commands), None)
    if name is None:
        return _starting(last, [*commands, *_options(parser)])
    chosen = commands[name]
    while (inner := _commands(chosen)) and (deeper := next((word for word in before if word in inner), None)):
        chosen = inner[deeper]
    if inner:
        return _starting(last, inner)
    option = _option(chosen, before[-1]) if before else None
    if option is not None:
        return _values(option, last, before)
    if last.startswith("-"):
        return _starting(last, _options(chosen))
    paths = [action for action in chosen._actions if not action.option_strings]
    return _values(paths[0], last, before) if paths else _starting(last, _options(chosen))


def _values(action: argparse.Action, last: str, before: Sequence[str]) -> list[str]:
    """What may stand where this argument is expected."""
    if action.choices is not None:
        return _starting(last, map(str, action.choices))
    if action.metavar == "JOB" and action.type is None:
        return _starting(last, _jobs(before))
    return [FILES] if action.type is Path or action.metavar in ("FILE", "FOLDER") else []


def _jobs(before: Sequence[str]) -> list[str]:
    """The newest jobs of the daemon that the line names, or of the usual one."""
    given = dict(itertools.pairwise(before))
    paths = Paths(inputs=Path(given.get("--inputs", Paths.inputs)))
    if "--config" in given:
        from fastfit_watch.config.settings import load_config

        paths = Paths(inputs=load_config(Path(given["--config"])).inputs)
    path = SpoolPaths(paths.inputs).ledger
    if not path.exists():
        return []
    ledger = Ledger(path, read_only=True)
    try:
        return [job.id for job in reversed(ledger.jobs(limit=_NEWEST)) if job.id.isprintable()]
    finally:
        ledger.close()


def _starting(beginning: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(beginning)]


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [text for action in parser._actions for text in action.option_strings if text.startswith("--")]


def _option(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """The option that `word` is, if it still awaits its value."""
    for action in parser._actions:
        if word in action.option_strings and action.nargs != 0:
            return action
    return None


def answer_quietly(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """`answer`, or nothing where something is wrong: a shell's line is no place for complaints."""
    try:
        return answer(parser, words)
    except (FastFitError, OSError):
        return []
