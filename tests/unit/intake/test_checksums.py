"""Lists of sums, as the programs of several systems write them; and what they say of an upload."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from fastfit_watch.domain.errors import UploadError
from fastfit_watch.intake.checksums import absent_files, mismatched_files, proven_files, read_sums

A, B = "0a" * 32, "f7" * 32
BOTH = {"anna.jpg": A, "my shirt.png": B}

GNU = f"{A}  anna.jpg\n{B}  my shirt.png\n"
LISTS = {
    "sha256sum": GNU,
    "sha256sum -b": GNU.replace("  ", " *"),
    "sha256sum --tag": f"SHA256 (anna.jpg) = {A}\nSHA256 (my shirt.png) = {B}\n",
    "sha256sum, with paths": f"{A}  ./anna.jpg\n{B}  spring/my shirt.png\n",
    "sha256sum, with itself": f"{GNU}{'e3' * 32}  SHA256SUMS\n",
    "shasum -a 256": GNU,
    "shasum -U": GNU.replace("  ", " ^"),
    "BSD sha256": f"SHA256 (anna.jpg) = {A}\nSHA256 (my shirt.png) = {B}\n",
    "BSD sha256 -r": f"{A} anna.jpg\n{B} my shirt.png\n",
    "openssl dgst": f"SHA256(anna.jpg)= {A}\nSHA2-256(my shirt.png)= {B}\n",
    "certutil": (
        f"SHA256 hash of anna.jpg:\n{A}\nCertUtil: -hashfile command completed successfully.\n"
        f"SHA256 hash of C:\\spring\\my shirt.png:\n{B}\nCertUtil: -hashfile command completed successfully.\n"
    ),
    "certutil of Windows 7": (
        f"SHA256 hash of file anna.jpg:\n{' '.join(['0a'] * 32)}\nCertUtil: -hashfile command completed successfully.\n"
        f"SHA256 hash of file my shirt.png:\n{' '.join(['f7'] * 32)}\n"
    ),
    "certutil in German": (
        f"SHA256-Hash von anna.jpg:\n{A}\nCertUtil: -hashfile-Befehl wurde erfolgreich ausgeführt.\n"
        f"SHA256-Hash von my shirt.png:\n{B}\n"
    ),
    "Get-FileHash": (
        "\nAlgorithm       Hash                                       Path\n---------       ----          ----\n"
        f"SHA256          {A.upper()}       C:\\Users\\me\\spring\\anna.jpg\n"
        f"SHA256          {B.upper()}       C:\\Users\\me\\spring\\my shirt.png\n\n\n"
    ),
    "Get-FileHash | Format-List": (
        f"\n\nAlgorithm : SHA256\nHash      : {A.upper()}\nPath      : C:\\spring\\anna.jpg\n\n"
        f"Algorithm : SHA256\nHash      : {B.upper()}\nPath      : C:\\spring\\my shirt.png\n\n"
    ),
    "Get-FileHash | Export-Csv": (
        '#TYPE Microsoft.PowerShell.Commands.FileHashInfo\n"Algorithm","Hash","Path"\n'
        f'"SHA256","{A.upper()}","C:\\spring\\anna.jpg"\n"SHA256","{B.upper()}","C:\\spring\\my shirt.png"\n'
    ),
    "HashCheck, with comments": f"; made by a program\n# of Windows\n\n{A} *anna.jpg\n{B} *my shirt.png\n",
}


@pytest.mark.parametrize("program", LISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_every_program_is_read(program: str, encoding: str, line_end: str) -> None:
    assert read_sums(LISTS[program].replace("\n", line_end).encode(encoding)) == BOTH


@pytest.mark.parametrize(
    "command", [["sha256sum"], ["sha256sum", "--tag"], ["shasum", "-a", "256"], ["openssl", "dgst", "-sha256"]]
)
def test_what_the_programs_here_write_is_read(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    files = {"anna (1).jpg": b"anna", "zoë.png": b"", "a = b.jpg": b"x"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, check=True)
    assert read_sums(done.stdout) == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{GNU}\nnonsense\n", "SHA256SUMS:4: this is no line of sha256sum"),
        ("d41d8cd98f00b204e9800998ecf8427e  anna.jpg", "SHA256SUMS:1: this is no line"),
        (f"{A[:-1]}  anna.jpg", "SHA256SUMS:1: this is no line"),
        (f"SHA256 {A} C:\\spring\\an...", "SHA256SUMS:1: the name is cut off"),
        (f"{A}  anna.jpg\n{B}  x/anna.jpg", "SHA256SUMS:2: 'anna.jpg' has another sum in a line before"),
        (f"{GNU}SHA256 hash of a.jpg:\n", "SHA256SUMS: its end is missing"),
        (A, "SHA256SUMS: its end is missing"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, words: str) -> None:
    with pytest.raises(UploadError) as caught:
        read_sums(text.encode())
    assert words in str(caught.value) and "sha256sum *" in str(caught.value)


def test_a_list_that_is_no_text_is_said() -> None:
    with pytest.raises(UploadError, match="not UTF-8"):
        read_sums(b"\xff" * 70)


def test_names_are_compared_however_accents_are_stored() -> None:
    composed, decomposed = "zoë.jpg", unicodedata.normalize("NFD", "zoë.jpg")
    sums = read_sums(f"{A}  {decomposed}".encode())
    for name in (composed, decomposed):
        assert mismatched_files(sums, {name: B}) == [name] and mismatched_files(sums, {name: A}) == []
        assert proven_files(sums, {name: A}) == {name} and proven_files(sums, {name: B}) == frozenset()
        assert absent_files(sums, [name]) == []


def test_files_with_another_sum_without_one_and_without_a_file() -> None:
    sums = {"a": "1", "b": "2", "d": "4", ".DS_Store": "5"}
    files = {"a": "1", "b": "x", "c": "3"}
    assert mismatched_files(sums, files) == ["b"]
    assert proven_files(sums, files) == {"a"}
    assert absent_files(sums, files) == ["d"]
