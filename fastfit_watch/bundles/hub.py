"""The hub: what its repositories hold, the bytes of a file, and its refusals in sentences.

huggingface_hub lives here and nowhere else. It brings the session, redirects, the token (HF_TOKEN; sent to no host but
the hub's, printed nowhere), mirrors (HF_ENDPOINT), HF_HUB_OFFLINE, and the meaning of refusals. Only the bytes are
read here rather than by its own download: version 2.4 begins a file anew whenever its process was ended.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from fastfit_watch.domain.errors import BundleError, StorageError

_ANSWER_S = 15.0
_PARTIAL_CONTENT = 206
_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. sha256 is known of large files; Git's own sum, git_sha1, of all others."""

    name: str
    bytes: int
    sha256: str
    git_sha1: str


class TransferError(Exception):
    """The connection broke, or the hub cannot answer now: worth another attempt. `str` is a short reason.

    wait_s : after how many seconds the hub wants to be asked again; None where it does not say.
    is_rate_limit : was too much asked of it?
    """

    def __init__(self, reason: str, wait_s: float | None = None, *, is_rate_limit: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.is_rate_limit = wait_s, is_rate_limit


def endpoint() -> str:
    """The address of the hub, or of its mirror."""
    return constants.ENDPOINT


def is_offline() -> bool:
    """Has the user forbidden the network?"""
    return constants.is_offline_mode()


def list_files(repository: str, branch: str, root: Path) -> tuple[str, list[HubFile]]:
    """List the files of the commit that a branch stands for now, and name it. `root` is where they belong.

    Raises
    ------
    TransferError : the connection broke, or the hub cannot answer now. BundleError : the hub refuses.
    """
    with hub_errors(repository, branch, root):
        _quieten()
        commit_hash = HfApi().model_info(repository, revision=branch, timeout=_ANSWER_S).sha
        if commit_hash is None:
            raise BundleError(f"{endpoint()} names no commit of {repository}.")
        entries = HfApi().list_repo_tree(repository, recursive=True, revision=commit_hash)
        files = (entry for entry in entries if isinstance(entry, RepoFile) and _stays_inside(entry.path))
        return commit_hash, [_hub_file(entry) for entry in files]


def read_file(repository: str, commit_hash: str, name: str, start: int, root: Path) -> Iterator[tuple[int, bytes]]:
    """The bytes of a file from `start` on, each chunk with its position: 0 first where the server knows no ranges.

    Raises
    ------
    TransferError : the connection broke, or the hub is unwell. BundleError : the hub refuses.
    """
    _quieten()
    url = hf_hub_url(repository, name, revision=commit_hash)
    headers = build_hf_headers(library_name="fastfit-watch")
    headers |= {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    with (
        hub_errors(repository, commit_hash, root, name),
        get_session().stream("GET", url, headers=headers, timeout=_ANSWER_S) as response,
    ):
        if response.is_error:
            response.read()
        hf_raise_for_status(response)
        position = start if response.status_code == _PARTIAL_CONTENT else 0
        for chunk in response.iter_bytes():  # as it comes: what is gathered first is lost when the connection breaks
            yield position, chunk
            position += len(chunk)


def _quieten() -> None:
    """What matters is said here, in one sentence; and the hub is told nothing of this machine and who uses it."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    constants.HF_HUB_DISABLE_TELEMETRY = True


def unreachable(error: TransferError, root: Path) -> BundleError:
    """The error after all attempts."""
    if error.is_rate_limit:
        return BundleError(
            f"The hub at {endpoint()} limits how often it is asked: {error}.",
            hint=f"Try again later. Set HF_TOKEN: accounts may ask more often. What is here is kept. {_by_hand(root)}",
        )
    return BundleError(
        f"The hub at {endpoint()} cannot be reached, or breaks off: {error}.",
        hint=f"Check the network and HF_ENDPOINT. What is here is kept, and it goes on from there. {_by_hand(root)}",
    )


@contextlib.contextmanager
def hub_errors(repository: str, revision: str, root: Path, name: str = "") -> Iterator[None]:
    """Turn what the hub refuses into a BundleError with what to do, and what may pass into a TransferError."""
    where = f"{endpoint()}/{repository}"
    try:
        yield
    except (BundleError, StorageError, TransferError):
        raise
    except OfflineModeIsEnabled as error:
        raise BundleError(
            f"HF_HUB_OFFLINE is set, but {root} is not complete.", hint=f"Unset it. {_by_hand(root)}"
        ) from error
    except GatedRepoError as error:
        raise BundleError(
            f"{where} is gated ({error.response.status_code}): its owner wants every reader to accept conditions.",
            hint=f"Accept them on that page, and set HF_TOKEN to a token of that account. {_by_hand(root)}",
        ) from error
    except RevisionNotFoundError as error:
        raise BundleError(
            f"{where} has no revision {revision} (404).",
            hint="If it was pinned here, 'fastfit-watch models pull --update' takes the present one.",
        ) from error
    except RemoteEntryNotFoundError as error:
        raise BundleError(
            f"{where} has no file {name} at revision {revision} (404).",
            hint="'fastfit-watch models pull --update' takes the present revision.",
        ) from error
    except HfHubHTTPError as error:
        raise _refusal(error, where, root) from error
    except OSError:
        raise
    except Exception as error:  # the HTTP client's errors have no base that huggingface_hub would name
        raise TransferError(f"{type(error).__name__}: {error}".rstrip(": ")) from error


def _refusal(error: HfHubHTTPError, where: str, root: Path) -> BundleError | TransferError:
    code = error.response.status_code
    if code in (401, 403):
        is_set = "authorization" in build_hf_headers()
        token = "the token that is set is not accepted" if is_set else "no token is set"
        return BundleError(
            f"{where} refuses ({code}): it is private or not there, and {token}.",
            hint=f"Set HF_TOKEN to a token that may read it. {_by_hand(root)}",
        )
    if isinstance(error, RepositoryNotFoundError) or code == 404:
        return BundleError(f"There is no {where} (404).", hint=f"Check HF_ENDPOINT. {_by_hand(root)}")
    wait_s = _read_wait_s(error.response.headers.get("Retry-After", ""), time.time())
    if code == _TOO_MANY_REQUESTS:
        token = "" if "authorization" in build_hf_headers() else "; accounts may ask more often: set HF_TOKEN"
        return TransferError(f"a rate limit ({code}){token}", wait_s, is_rate_limit=True)
    return TransferError(f"it answers with an error ({code})", wait_s)


def _read_wait_s(header: str, now_s: float) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3): seconds, or a date. None where it says neither."""
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now_s)
    except ValueError:
        return None


def _by_hand(root: Path) -> str:
    return f"Or copy the files into {root} from a machine that has them."


def _stays_inside(name: str) -> bool:
    """Does a file of this name lie below the folder it is put into? Git allows no other, but a mirror may say one."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _hub_file(entry: RepoFile) -> HubFile:
    if entry.lfs is not None:
        return HubFile(entry.path, entry.size, entry.lfs.sha256, "")
    return HubFile(entry.path, entry.size, "", entry.blob_id)
