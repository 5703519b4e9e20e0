"""Reads untrusted YAML into a tree of texts, lists and tables, each with its line, and interprets nothing.

`no` stays "no", `010` stays "010" and `2024-13-45` is a text: the caller decides what a text means. Aliases, anchors,
tags, merges, duplicate keys and deep nesting are refused, and with them the small files that expand to gigabytes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import yaml

from fastfit_watch.domain.errors import FastFitError, Fault

MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_FAULTS = 100
SHOWN = 60
_COMMENT = re.compile(r"[ \t]+#[^\r\n]*")
# What ends a line for YAML 1.1 (section 5.4), by which PyYAML counts lines.
_LINE_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_STAR = "If it is a pattern for file names, put it in quotes."
_SEE_LINES = "Check the colons, quotes, brackets and indentation here and in the line before."
# What keyboards and text programs write in place of YAML's own characters, and what to call it.
_LOOKALIKES = {
    "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb": ("curly quotes", "straight ones, or none"),
    "\u00a0\u202f\u2007\u3000": ("a space of another kind", "a plain space"),
    "\uff1a\ufe55\ua789": ("a wide colon", "a plain colon and a space"),
    "\uff0c\u3001\ufe50": ("a wide comma", "a plain comma"),
    "\u2010\u2011\u2012\u2013\u2014\u2212": ("a dash that is no hyphen", "a plain hyphen"),
    "\uff3b\uff3d\uff5b\uff5d": ("wide brackets", "plain ones"),
}


@dataclass(frozen=True)
class YamlScalar:
    """A name, number or word as it is written, without its quotes.

    quoted: it had quotes. comment: the comment that follows it in its line, from the space before `#` on.
    """

    value: str
    line: int
    quoted: bool = False
    comment: str = ""

    @property
    def is_absent(self) -> bool:
        """Nothing was written, or YAML's word for nothing."""
        return not self.quoted and self.value in ("", "~", "null", "Null", "NULL")

    @property
    def shown(self) -> str:
        """The value in quotes, on one line and of limited length, for a sentence."""
        return repr(self.value if len(self.value) <= SHOWN else self.value[:SHOWN] + "...")


@dataclass(frozen=True)
class YamlList:
    """A list of nodes."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class YamlMap:
    """Keys with their values, in the order written. A key that is written twice is here once."""

    entries: tuple[tuple[YamlScalar, Node], ...]
    line: int


@dataclass(frozen=True)
class Refused:
    """Stands for something that is not allowed and was reported."""

    line: int


Node = YamlScalar | YamlList | YamlMap | Refused


class Faults:
    """Collects the faults of one file.

    error: makes the error that is raised from all faults, in the order of their lines.
    """

    def __init__(self, file: str, error: Callable[[tuple[Fault, ...]], FastFitError]) -> None:
        self._file = file
        self._error = error
        self._found: dict[Fault, None] = {}

    def add(self, line: int, message: str, fix: str) -> None:
        """Report one fault. line: 0 for the whole file."""
        self._found[Fault(self._file, line, message, fix)] = None

    def stop(self, line: int, message: str, fix: str) -> NoReturn:
        """Report a fault after which nothing more can be read, and raise the error with all faults."""
        self.add(line, message, fix)
        raise self._error(self._sorted())

    def raise_if_any(self) -> None:
        """Raise the error with all faults, if there are any."""
        if self._found:
            raise self._error(self._sorted())

    def _sorted(self) -> tuple[Fault, ...]:
        faults = sorted(self._found, key=lambda fault: fault.line)
        more = len(faults) - MAX_FAULTS
        if more > 0:
            faults[MAX_FAULTS:] = [Fault(self._file, 0, f"There are {more} more faults.", "Mend these first.")]
        return tuple(faults)


def read_yaml(data: bytes, faults: Faults) -> Node:
    """Return the tree of one YAML document. What is not allowed but can be skipped is added to `faults`.

    Raises the error of `faults` where there can be no tree.
    """
    text = _decode(data, faults)
    try:
        return _Reader(text, faults).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = "".join(letter if letter.isprintable() else "?" for letter in error.problem or "it cannot be read")
        faults.stop(mark.line + 1 if mark else 0, f"This is not valid YAML: {problem}.", _fix(error, mark, text))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.stop(line, "There is a character that cannot be shown.", "Write the line anew.")
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets the last two out for escapes such as "\UFFFFFFFF" and for over-long version numbers.
        faults.stop(0, "This is not valid YAML.", "Write it after the examples in the documentation.")


def explain_lookalikes(text: str) -> str:
    """A sentence on characters in a text that look like YAML's own and are not; empty if there are none."""
    for letters, (what, instead) in _LOOKALIKES.items():
        if any(letter in text for letter in letters):
            return f"It has {what}, which YAML takes for a part of the text. Write {instead}."
    return ""


def _decode(data: bytes, faults: Faults) -> str:
    """Decode UTF-8, with or without a byte order mark."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        faults.stop(0, "The file is UTF-16 or UTF-32.", "Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        faults.stop(data.count(b"\n", 0, error.start) + 1, "This is not UTF-8 text.", "Save the file as UTF-8.")


def _fix(error: yaml.MarkedYAMLError, mark: yaml.Mark | None, text: str) -> str:
    """What to do about a fault that PyYAML found."""
    lines = _LINE_BREAK.split(text)
    at = min(mark.line, len(lines) - 1) if mark else 0
    problem, context = error.problem or "", error.context or ""
    if "alias" in context:
        return _STAR
    if "'\\t'" in problem:
        before = lines[at][: mark.column] if mark else ""
        return "Put a space after the colon, not a tab." if before.strip() else "Indent with spaces, not with tabs."
    lookalikes = explain_lookalikes("".join(lines[max(0, at - 1) : at + 1]))
    if lookalikes:
        return lookalikes
    if "flow" in context and error.context_mark and _COMMENT.search(lines[error.context_mark.line]):
        return "What follows ' #' is a comment; if it is part of a value, put the value in quotes."
    if "mapping values are not allowed" in problem:
        return f"If a value has ': ' in it, put the value in quotes. {_SEE_LINES}"
    return _SEE_LINES


class _Reader:
    """Builds the tree from PyYAML's events, before it makes values of them."""

    def __init__(self, text: str, faults: Faults) -> None:
        self._text = text
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._faults = faults
        self._nodes = 0

    def read(self) -> Node:
        tree: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if tree is not None:
                    self._faults.stop(_line(event), "A second document starts here ('---').", "Keep only one.")
                tree = self._node(next(self._events), 1)
        return tree or YamlScalar("", 0)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        """The tree below one event."""
        line = _line(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._faults.stop(line, f"There are more than {MAX_NODES} entries.", "Make it shorter.")
        if depth > MAX_DEPTH:
            self._faults.stop(line, f"This is nested more than {MAX_DEPTH} deep.", "Three levels are enough.")
        if isinstance(event, yaml.AliasEvent):
            self._faults.add(line, f"'*{event.anchor}' is an alias, which is not allowed.", _STAR)
            return Refused(line)
        node = self._content(event, line, depth)
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            self._faults.add(line, f"'&{anchor}' is an anchor, which is not allowed.", "Write the value out each time.")
        if tag is not None:
            self._faults.add(line, "'!' begins a tag, which is not allowed.", "Remove it, or put the value in quotes.")
        return node if anchor is None and tag is None else Refused(line)

    def _content(self, event: yaml.Event, line: int, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return YamlScalar(event.value, line, event.style is not None, self._comment_after(event))
        if isinstance(event, yaml.SequenceStartEvent):
            items = (self._node(each, depth + 1) for each in self._until(yaml.SequenceEndEvent))
            return YamlList(tuple(items), line)
        entries: dict[str, tuple[YamlScalar, Node]] = {}
        for each in self._until(yaml.MappingEndEvent):
            key = self._node(each, depth + 1)
            value = self._node(next(self._events), depth + 1)
            usable = self._usable(key, entries)
            if usable is not None:
                entries[usable.value] = (usable, value)
        return YamlMap(tuple(entries.values()), line)

    def _comment_after(self, event: yaml.ScalarEvent) -> str:
        found = _COMMENT.match(self._text, event.end_mark.index) if event.end_mark else None
        return found[0] if found else ""

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        return itertools.takewhile(lambda event: not isinstance(event, end), self._events)

    def _usable(self, key: Node, entries: Mapping[str, tuple[YamlScalar, Node]]) -> YamlScalar | None:
        """The key, unless something is wrong with it."""
        if isinstance(key, YamlList | YamlMap):
            self._faults.add(key.line, "A list or table cannot be a key.", "Write a name, a colon and a value.")
        elif isinstance(key, YamlScalar) and key.value == "<<" and not key.quoted:
            self._faults.add(key.line, "Merging with '<<' is not allowed.", "Write the values out.")
        elif isinstance(key, YamlScalar) and key.value in entries:
            first = entries[key.value][0].line
            self._faults.add(key.line, f"{key.shown} is here again; it is in line {first} too.", "Keep one of them.")
        elif isinstance(key, YamlScalar):
            return key
        return None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
