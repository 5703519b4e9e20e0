"""Reads the manifest of an upload into looks, and reports all its faults together, each with its line and a fix.

person: anna.jpg                      people: [anna.jpg, "b*.jpg"]
upper: shirt.jpg             or       steps: 30
lower: jeans.jpg                      looks:
seed: 7                                 casual: {upper: shirt.jpg, lower: jeans.jpg}
                                        gala:   {dress: gown.jpg, steps: 40, people: [anna.jpg]}
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastfit_watch.config.safe_yaml import (
    SHOWN,
    Faults,
    Node,
    Refused,
    YamlList,
    YamlMap,
    YamlScalar,
    explain_lookalikes,
    read_yaml,
)
from fastfit_watch.domain.errors import ManifestError
from fastfit_watch.domain.job import Priority
from fastfit_watch.domain.look import Category, Look, SamplingOptions, outfit_conflict
from fastfit_watch.domain.options import OPTIONS
from fastfit_watch.domain.text import JOINERS, can_be_shown

MANIFEST_NAMES = ("outfit.yaml", "outfit.yml")
MAX_PICTURES = 5000
MAX_BYTES = 256 * 1024
"""Largest manifest, whatever the settings allow."""
ONLY_LOOK = "look"
"""Name of the one look of the short form."""
_RESERVED = frozenset({"READY", "CANCEL", "RETRY", "SHA256SUMS", *MANIFEST_NAMES})
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif")
_PATTERN = re.compile(r"[*?\[]")
_SIGNS = frozenset(" ._-") | JOINERS
_LOOK_NAME_LENGTH = 60
# The manifest under another name: hidden extensions, capitals, second copies.
_LIKE_MANIFEST = re.compile(r"outfits?[ _()0-9-]*(\.(ya?ml|txt|json))*|.*\.ya?ml(\.txt)*", re.IGNORECASE)
_MOST_HINTS = 20
_QUOTES = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb"
_SEPARATORS = re.compile(r"[\s,;]+(?:and[\s,;]+)?")
# A file name may have 255 bytes, and ".webp" is the longest thing to come.
_KEY_BYTES = 240
_NAME_BYTES = 255
_EXAMPLE = "Write for example 'person: anna.jpg' and, in the next line, 'upper: shirt.jpg'."


_SLOTS = tuple(category.value for category in Category)
_IN_LOOK = (*_SLOTS, "person", "people", *OPTIONS)
_ON_TOP = (*_IN_LOOK, "looks", "priority")
# `urgent` is for who runs the machine to give, not for an uploader to take.
_PRIORITIES = {priority.word: priority for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)}


@dataclass(frozen=True)
class MissingFile:
    """A file or pattern that a manifest names in `line`, and for which nothing is there. hint: what may be meant."""

    name: str
    line: int
    hint: str = ""


@dataclass(frozen=True)
class Manifest:
    """The looks that an upload asks for.

    looks: one for each person and outfit, person by person. files: every picture named, in the order of its first
    mention. missing_files: those of `files`, and the patterns, for which nothing is there yet. unused: the pictures in
    the folder that no look uses. priority: low gives way to everyone's jobs, high goes before the uploader's own other
    jobs.
    """

    looks: tuple[Look, ...]
    files: tuple[str, ...]
    missing_files: tuple[MissingFile, ...]
    unused: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of `missing_files`."""
        return tuple(file.name for file in self.missing_files)

    @property
    def summary(self) -> str:
        """`2 people, 2 looks: 3 pictures`."""
        people, names = {look.person for look in self.looks}, {look.name for look in self.looks}
        counts = ((len(people), "person", "people"), (len(names), "look", "looks"))
        first, second = (f"{count} {one if count == 1 else many}" for count, one, many in counts)
        return f"{first}, {second}: {len(self.looks)} picture{'' if len(self.looks) == 1 else 's'}"


def read_manifest(text: bytes, file_name: str, names: Collection[str]) -> Manifest:
    """Read a manifest. names: the files that are in its folder, to resolve patterns and find out what is missing.

    Raises ManifestError with all faults. A file that is named but not there is no fault.
    """
    faults = Faults(file_name, ManifestError)
    if len(text) > MAX_BYTES:
        faults.stop(0, f"The file is larger than {MAX_BYTES // 1024} KB.", "Split it into several jobs.")
    manifest = _ManifestReader(faults, names).read(read_yaml(text, faults))
    faults.raise_if_any()
    return manifest


def misnamed_manifest(names: Collection[str]) -> str:
    """Return the file that is probably the manifest under another name, such as `outfit.yaml.txt`, or nothing."""
    found = [name for name in sorted(names) if _LIKE_MANIFEST.fullmatch(name) and name not in MANIFEST_NAMES]
    return min(found, key=lambda name: not name.casefold().startswith("outfit"), default="")


_Entries = Mapping[str, tuple[YamlScalar, Node]]


@dataclass(frozen=True)
class _LookDraft:
    """One look before its people are known.

    title: its name in sentences. people: None where those of the top level apply.
    """

    name: YamlScalar
    title: str
    garments: Mapping[Category, str]
    options: SamplingOptions
    people: tuple[YamlScalar, ...] | None


class _ManifestReader:
    """Walks one manifest, and goes on after a fault to find them all."""

    def __init__(self, faults: Faults, names: Collection[str]) -> None:
        self._faults = faults
        self._names = frozenset(names)
        # A Mac sends names decomposed while people type them composed: the spellings that are there, by NFC.
        self._spellings: dict[str, list[str]] = {}
        for name in sorted(names):
            self._spellings.setdefault(_composed(name), []).append(name)
        self._steps_are_given = False  # at the top level, for all looks
        self._lines: dict[str, int] = {}
        self._missing: dict[str, YamlScalar] = {}

    def read(self, root: Node) -> Manifest:
        if not isinstance(root, YamlMap):
            empty = isinstance(root, YamlScalar) and root.is_absent
            self._faults.stop(0 if empty else root.line, "There are no keys and values here.", _EXAMPLE)
        entries = self._entries(root, _ON_TOP)
        defaults = self._options(entries, SamplingOptions())
        self._steps_are_given = "steps" in entries
        outfits = self._outfits(entries, defaults)
        garments = {file for outfit in outfits for file in outfit.garments.values()}
        shared = self._people(entries)
        everyone = None if shared is None else self._resolve(shared, garments)
        worn: list[tuple[_LookDraft, list[str]]] = []
        for outfit in outfits:
            own = everyone if outfit.people is None else self._resolve(outfit.people, garments)
            if own is None:
                self._faults.add(outfit.name.line, f"{outfit.title} names no person.", "Add 'people: [anna.jpg]'.")
            worn.append((outfit, own or []))
        self._refuse_twins()
        looks = self._looks(worn)
        files = tuple(sorted(self._lines, key=lambda name: self._lines[name]))
        return Manifest(looks, files, self._missing_files(), self._unused(), self._priority(entries))

    def _unused(self) -> tuple[str, ...]:
        return tuple(name for name in sorted(self._names) if _is_picture(name) and name not in self._lines)

    def _missing_files(self) -> tuple[MissingFile, ...]:
        missing = sorted(self._missing.items(), key=lambda item: item[1].line)
        return tuple(
            MissingFile(name, scalar.line, self._hint(scalar) if number < _MOST_HINTS else "")
            for number, (name, scalar) in enumerate(missing)
        )

    def _hint(self, name: YamlScalar) -> str:
        """What may be meant by a name for which nothing is there; empty if nothing comes near."""
        with_comment = (name.value + name.comment).rstrip()
        if name.comment and (there := self._spellings.get(_composed(with_comment))):
            return f"{there[0]!r} is there: YAML takes what follows ' #' for a comment, so put the name in quotes."
        free = [each for each in sorted(self._names) if _is_picture(each) and each not in self._lines]
        if _PATTERN.search(name.value):
            pattern = _composed(name.value).casefold()
            near = [each for each in free if fnmatch.fnmatchcase(_composed(each).casefold(), pattern)]
        else:
            near = [each for each in free if _loose(each) == _loose(name.value)]
        if near:
            return f"{near[0]!r} is there: names must match exactly."
        alike = difflib.get_close_matches(name.value[:SHOWN], free, n=1, cutoff=0.8)
        return f"Did you mean {alike[0]!r}?" if alike else ""

    def _priority(self, entries: _Entries) -> Priority:
        key, value = entries.get("priority", (None, None))
        if key is None or isinstance(value, Refused):
            return Priority.NORMAL
        found = _PRIORITIES.get(value.value.lower()) if isinstance(value, YamlScalar) else None
        if found is None:
            self._faults.add(key.line, "'priority' must be low, normal or high.", "Write for example 'priority: low'.")
        return found or Priority.NORMAL

    def _entries(self, table: YamlMap, known: Sequence[str]) -> _Entries:
        """The entries of a table whose keys are known, by key."""
        for key, _ in table.entries:
            if key.value not in known:
                self._faults.add(key.line, f"{key.shown} is not a key that is known here.", _suggest(key.value, known))
        return {key.value: (key, value) for key, value in table.entries if key.value in known}

    def _outfits(self, top: _Entries, defaults: SamplingOptions) -> list[_LookDraft]:
        """The looks of the long form, or the one of the short form."""
        slots = [key for name, (key, _) in top.items() if name in _SLOTS]
        if "looks" not in top:
            name = YamlScalar(ONLY_LOOK, slots[0].line if slots else 0)
            return [_LookDraft(name, "The manifest", self._garments(top, "The manifest", name.line), defaults, None)]
        for key in slots:
            self._faults.add(key.line, f"{key.shown} stands outside the looks.", "Move it into one of the looks.")
        key, looks = top["looks"]
        if not isinstance(looks, YamlMap) or not looks.entries:
            if not isinstance(looks, Refused):
                self._faults.add(key.line, "'looks' must name its looks.", "Write 'casual: {upper: shirt.jpg}' below.")
            return []
        outfits = [self._outfit(name, look, defaults) for name, look in looks.entries]
        return [outfit for outfit in outfits if outfit is not None]

    def _outfit(self, name: YamlScalar, look: Node, defaults: SamplingOptions) -> _LookDraft | None:
        if not _can_name_look(_composed(name.value)):
            self._faults.add(
                name.line,
                f"{name.shown} cannot be the name of a look, as it becomes part of a file name.",
                "Use up to 60 letters, digits, spaces, '.', '_' and '-', and begin with a letter or digit.",
            )
        if not isinstance(look, YamlMap):
            if not isinstance(look, Refused):
                self._faults.add(name.line, f"Look {name.shown} must have keys.", "Write {upper: shirt.jpg} after it.")
            return None
        entries = self._entries(look, _IN_LOOK)
        title = f"Look {name.shown}"
        garments = self._garments(entries, title, name.line)
        return _LookDraft(name, title, garments, self._options(entries, defaults), self._people(entries))

    def _garments(self, entries: _Entries, title: str, line: int) -> dict[Category, str]:
        """The garments of one look that can be used."""
        given = [category for category in Category if category in entries]
        if not given:
            self._faults.add(line, f"{title} has no garment.", f"Add one of: {', '.join(_SLOTS)}.")
        conflict = outfit_conflict(given)
        if conflict is not None:
            dress, _ = entries[Category.DRESS]
            self._faults.add(dress.line, conflict, "Remove 'dress', or 'upper' and 'lower'.")
        garments: dict[Category, str] = {}
        for category in given:
            key, value = entries[category]
            file = self._plain_name(value, key)
            if file is None:
                continue
            if re.search(r"[*?]", file.value) and file.value not in self._names:
                self._faults.add(file.line, f"{key.shown} needs one file, not a pattern.", "Write the file's name.")
                continue
            garments[category] = self._find(file)
        return garments

    def _people(self, entries: _Entries) -> tuple[YamlScalar, ...] | None:
        """Who is named, as written; None if the key is not there."""
        given = [entries[name] for name in ("person", "people") if name in entries]
        if not given:
            return None
        if len(given) == 2:
            line = max(key.line for key, _ in given)
            self._faults.add(line, "There are both 'person' and 'people'.", "Put all names under 'people'.")
        key, value = given[-1]
        items = value.items if isinstance(value, YamlList) else (value,)
        if not items:
            self._faults.add(key.line, f"{key.shown} names nobody.", "Write 'people: [anna.jpg]'.")
        named = [self._plain_name(item, key) for item in items]
        return tuple(name for name in named if name is not None)

    def _plain_name(self, value: Node, key: YamlScalar) -> YamlScalar | None:
        """The name of a file directly in the upload, or None after a fault."""
        if isinstance(value, Refused):
            return None
        if not isinstance(value, YamlScalar):
            self._faults.add(value.line, f"{key.shown} must be a file name.", f"Write '{key.value}: anna.jpg'.")
            return None
        name = value.value
        if value.is_absent or not name:
            self._faults.add(value.line, f"{key.shown} has no value.", "Write a file name after it, or remove the key.")
        elif "/" in name or "\\" in name or name == "..":
            self._faults.add(value.line, f"{value.shown} is not in this folder.", "Put the file here; write its name.")
        elif name.startswith(".") or name in _RESERVED:
            self._faults.add(value.line, f"{value.shown} cannot be the name of a picture.", "Rename the file.")
        elif not can_be_shown(name):
            self._faults.add(value.line, f"{value.shown} has characters that cannot be shown.", "Rename the file.")
        elif len(name.encode()) > _NAME_BYTES:
            self._faults.add(value.line, f"{value.shown} is too long for a file name.", "Use a shorter name.")
        elif name in self._names:
            return value
        elif name[0] in _QUOTES and name[-1] in _QUOTES:
            self._faults.add(value.line, f"{value.shown} is no file here.", explain_lookalikes(name))
        elif len(parts := [part for part in _SEPARATORS.split(name) if part]) > 1 and all(map(_is_picture, parts)):
            fix = f"Put brackets round a list, and commas between the names: [{', '.join(parts)}]."
            self._faults.add(value.line, f"{value.shown} is read as one name.", fix)
        else:
            return value
        return None

    def _find(self, name: YamlScalar) -> str:
        """Return the file as the folder spells it. One that is not there is kept as missing."""
        there = [name.value] if name.value in self._names else self._spellings.get(_composed(name.value), [])
        if not there:
            self._missing.setdefault(name.value, name)
        for file in there or [name.value]:  # several are refused as too much alike
            self._lines.setdefault(file, name.line)
        return there[0] if there else name.value

    def _resolve(self, people: Sequence[YamlScalar], garments: Collection[str]) -> list[str]:
        """Return the files of these people, each once. Patterns match pictures that are not used as garments."""
        found: dict[str, None] = {}
        for name in people:
            if name.value in self._names or not _PATTERN.search(name.value):
                found[self._find(name)] = None
                continue
            pattern = _with_plain_extension(name.value)
            matches = [
                file
                for file in sorted(self._names)
                if _is_picture(file)
                and file not in garments
                and fnmatch.fnmatchcase(_with_plain_extension(file), pattern)
            ]
            for file in matches:
                self._lines.setdefault(file, name.line)
            if not matches:
                self._missing.setdefault(name.value, name)
            found.update(dict.fromkeys(matches))
        return list(found)

    def _options(self, entries: _Entries, defaults: SamplingOptions) -> SamplingOptions:
        """The options given here; `defaults` for the others."""
        chosen: dict[str, Any] = {}
        for name, option in OPTIONS.items():
            key, value = entries.get(name, (None, None))
            if key is None or isinstance(value, Refused):
                continue
            chosen[name] = option.value.read(value.value) if isinstance(value, YamlScalar) else None
            if chosen[name] is None:
                del chosen[name]
                instead = f", not {value.shown}" if isinstance(value, YamlScalar) and not value.is_absent else ""
                message = f"'{name}' must be {option.value.expected}{instead}."
                self._faults.add(key.line, message, f"Write for example '{name}: {option.example}'.")
        if "preset" in chosen and "steps" not in chosen and not self._steps_are_given:
            chosen["steps"] = chosen["preset"].steps
        return replace(defaults, **chosen)

    def _looks(self, worn: Sequence[tuple[_LookDraft, Sequence[str]]]) -> tuple[Look, ...]:
        """One look for each person and outfit, person by person, so that each is prepared once."""
        count = sum(len(people) for _, people in worn)
        if count > MAX_PICTURES:
            self._faults.add(0, f"These are {count} pictures; a job may have {MAX_PICTURES}.", "Split the job.")
            return ()
        pairs = [(person, outfit) for outfit, people in worn for person in people]
        rank: dict[str, int] = {}
        for person, _ in pairs:
            rank.setdefault(person, len(rank))
        looks: dict[str, Look] = {}
        for person, outfit in sorted(pairs, key=lambda pair: rank[pair[0]]):
            look = Look(person, _composed(outfit.name.value), outfit.garments, outfit.options)
            twin = looks.setdefault(_folded(look.key), look)
            # People whose names are too much alike were reported already.
            if twin is not look and (twin.person == person or _folded(twin.person) != _folded(person)):
                line = outfit.name.line if twin.person == person else self._lines[person]
                one, other = (twin.name, look.name) if twin.person == person else (twin.person, person)
                self._faults.add(line, f"{one!r} and {other!r} would give pictures of one name.", "Rename one of them.")
            if len(os.fsencode(look.key)) > _KEY_BYTES:
                self._faults.add(self._lines[person], f"{person!r} is too long a name.", "Use a shorter name.")
        return tuple(looks.values())

    def _refuse_twins(self) -> None:
        """Names that differ only in capitals, or in how an accent is stored, are one name on some disks."""
        seen: dict[str, str] = {}
        for file, line in self._lines.items():
            twin = seen.setdefault(_folded(file), file)
            if twin != file:
                message = f"{twin!r} and {file!r} are too much alike: they differ only in {_difference(twin, file)}."
                self._faults.add(line, message, "Rename one of the files.")


def _suggest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key.lower()[:40], known, n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    return "It belongs at the top of the file." if key in _ON_TOP else f"Known are: {', '.join(known)}."


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_PICTURES) and not name.startswith(".")


def _can_name_look(name: str) -> bool:
    """Has the name letters, combining marks, digits and a few signs only, and is its first one no sign?"""
    kinds = [unicodedata.category(letter)[0] for letter in name]
    return (
        0 < len(name) <= _LOOK_NAME_LENGTH
        and (kinds[0] in "LN" or name[0] == "_")
        and all(kind in "LMN" or letter in _SIGNS for letter, kind in zip(name, kinds, strict=True))
    )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _with_plain_extension(name: str) -> str:
    """A name or pattern whose extension is in small letters: cameras write `.JPG`."""
    stem, dot, extension = _composed(name).rpartition(".")
    return f"{stem}{dot}{extension.lower()}" if dot else extension


def _folded(name: str) -> str:
    """What two names have in common that are one name on some disks, or look the same."""
    return _composed("".join(letter for letter in name if letter not in JOINERS)).casefold()


def _loose(name: str) -> str:
    """What two names have in common of which one was probably meant as the other: not capitals, not the extension."""
    plain = " ".join(unicodedata.normalize("NFKC", _folded(name)).split())
    while plain.endswith(_PICTURES):
        plain = plain.rpartition(".")[0]
    return plain


def _difference(one: str, other: str) -> str:
    if _composed(one) == _composed(other):
        return "how an accent is stored"
    return "capitals" if one.casefold() == other.casefold() else "capitals and in characters that do not show"
