"""Reads lists of SHA-256 sums, as the programs of several systems write them, and compares them with an upload.

GNU and busybox (`sha256sum`), Perl's `shasum`, BSD and `openssl dgst` (`SHA256 (anna.jpg) = ...`), Windows' `certutil
-hashfile` and PowerShell's `Get-FileHash`, as a table, a list or CSV; in UTF-8 or UTF-16, with or without a byte order
mark, with either kind of line end.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping

from fastfit_watch.domain.errors import UploadError

SUMS = "SHA256SUMS"
_HEX = r"(?P<sum>[0-9a-f]{64})"
# Each form has a sum and a name in one line.
_FORMS = (
    re.compile(rf"\\?{_HEX} [ *?^]?(?P<name>\S.*)", re.IGNORECASE),  # sha256sum, shasum, BSD's sha256 -r
    re.compile(rf"SHA(2-)?256 ?\((?P<name>.+)\) ?= ?{_HEX}", re.IGNORECASE),  # BSD, sha256sum --tag, openssl dgst
    re.compile(rf"SHA256 +{_HEX} +(?P<name>\S.*)", re.IGNORECASE),  # Get-FileHash as a table
)
# Lines that name no file: headings, rulers and closing words.
_HEADING = re.compile(r"Algorithm\s+Hash\s+Path|[- ]+|#.*|;.*|CertUtil: .*|Algorithm *: *SHA256", re.IGNORECASE)
# The two lines of certutil and of Get-FileHash as a list.
_CERTUTIL = re.compile(r"(SHA256[ -]hash (of|von|de)|hachage SHA256 de) (file )?(?P<name>.+?) ?:", re.IGNORECASE)
_HASH_LINE = re.compile(r"(?:Hash *: *)?(?P<sum>(?:[0-9a-f]{2} ?){32})", re.IGNORECASE)
_PATH_LINE = re.compile(r"Path *: *(?P<name>\S.*)", re.IGNORECASE)
_CUT_OFF = "..."  # how PowerShell ends a path that was too long for its table
_HINT = "Make it with 'sha256sum *'."


def read_sums(data: bytes) -> dict[str, str]:
    """Read a list of sums: file name, composed (NFC) and without its folder -> sha256.

    Raises UploadError naming the first line that has no sum.
    """
    sums: dict[str, str] = {}
    for number, name, sha256 in _entries(_decode(data).splitlines()):
        if name.endswith((_CUT_OFF, "\u2026")):
            raise UploadError(f"{SUMS}:{number}: the name is cut off.", hint=_HINT)
        key = _key(re.split(r"[\\/]", name)[-1])
        if sums.setdefault(key, sha256) != sha256:
            raise UploadError(f"{SUMS}:{number}: {key!r} has another sum in a line before.", hint=_HINT)
    sums.pop(SUMS, None)  # its own sum is that of a file that was still empty
    return sums


def mismatched_files(sums: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """Return the names of `files` (name -> sha256) that `sums` gives another hash. Files without a sum are left out."""
    return [name for name, sha256 in files.items() if sums.get(_key(name), sha256) != sha256]


def proven_files(sums: Mapping[str, str], files: Mapping[str, str]) -> frozenset[str]:
    """Return the names of `files` (name -> sha256) that `sums` gives the same hash: they have come whole."""
    return frozenset(name for name, sha256 in files.items() if sums.get(_key(name)) == sha256)


def absent_files(sums: Mapping[str, str], names: Collection[str]) -> list[str]:
    """Return the files that `sums` names and that are not there. Hidden ones are no part of an upload."""
    present = {_key(name) for name in names}
    return [name for name in sums if name not in present and not name.startswith(".")]


def _key(name: str) -> str:
    """A Mac sends names decomposed, whatever the list says."""
    return unicodedata.normalize("NFC", name)


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UploadError(f"{SUMS} is not UTF-8 text.", hint=_HINT) from error


def _entries(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Each sum with the number of its line and the name as written. Raises UploadError for a line without meaning."""
    name = sha256 = ""  # of a form that has them in two lines
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if line.startswith('"'):
            line = " ".join(next(csv.reader([line])))
        found = next((found for form in _FORMS if (found := form.fullmatch(line))), None)
        if found is not None:
            yield number, found["name"], found["sum"].lower()
        elif found := _CERTUTIL.fullmatch(line) or _PATH_LINE.fullmatch(line):
            name = found["name"]
        elif found := _HASH_LINE.fullmatch(line):
            sha256 = found["sum"].replace(" ", "").lower()
        elif line and not _HEADING.fullmatch(line):
            raise UploadError(f"{SUMS}:{number}: this is no line of sha256sum.", hint=_HINT)
        if name and sha256:
            yield number, name, sha256
            name = sha256 = ""
    if name or sha256:
        raise UploadError(f"{SUMS}: its end is missing.", hint=_HINT)
