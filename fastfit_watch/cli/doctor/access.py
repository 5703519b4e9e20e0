"""What an account may do with a folder, told from its owner, mode and ACL, without being that account.

The order in which they decide is that of acl(5), "Access check algorithm".
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from fastfit_watch.domain.errors import ConfigError

READ, WRITE, ENTER = 4, 2, 1
_ACCESS, _DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_USER, _GROUP_OWNER, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_NO_ACL = (errno.ENODATA, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Account:
    """Somebody on this machine. gids: the group of the account first, then all that it is a member of."""

    name: str
    uid: int
    gids: tuple[int, ...]


@dataclass(frozen=True)
class Acl:
    """The part of an ACL that a mode does not hold: rights of named users and groups, and the mask that bounds them."""

    users: tuple[tuple[int, int], ...]
    groups: tuple[tuple[int, int], ...]
    group_owner: int
    mask: int


@dataclass(frozen=True)
class Rights:
    """Who owns something and who may do what with it. mode: permission bits."""

    uid: int
    gid: int
    mode: int
    acl: Acl | None = None

    def allow(self, account: Account, wanted: int) -> bool:
        """May this account do all of `wanted`, a sum of READ, WRITE and ENTER?"""
        if account.uid == 0:
            return True
        if account.uid == self.uid:
            return _has(self.mode >> 6, wanted)
        if self.acl is not None:
            return self._allow_by_acl(self.acl, account, wanted)
        return _has(self.mode >> 3 if self.gid in account.gids else self.mode, wanted)

    def _allow_by_acl(self, acl: Acl, account: Account, wanted: int) -> bool:
        for uid, rights in acl.users:
            if uid == account.uid:
                return _has(rights & acl.mask, wanted)
        own = [(self.gid, acl.group_owner)]
        matching = [rights for gid, rights in (*own, *acl.groups) if gid in account.gids]
        if matching:
            return any(_has(rights & acl.mask, wanted) for rights in matching)
        return _has(self.mode, wanted)


def find_account(name: str) -> Account:
    """The account of that name. Raises ConfigError if there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"There is no account {name!r} on this machine.", hint="Name one with --uploader.") from None
    return Account(name, entry.pw_uid, (entry.pw_gid, *os.getgrouplist(name, entry.pw_gid)))


def present_account() -> Account:
    """The account that runs this."""
    return Account(account_name(os.geteuid()), os.geteuid(), (os.getegid(), *os.getgroups()))


def account_name(uid: int) -> str:
    """The name of an account, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def rights_of(path: Path) -> Rights:
    """Owner, mode and ACL of a file or folder. Raises OSError."""
    facts = path.stat()
    mode = stat.S_IMODE(facts.st_mode)
    acl = _read_acl(path, _ACCESS)
    return Rights(facts.st_uid, facts.st_gid, mode, acl[1] if acl else None)


def rights_of_new_folder(parent: Path, account: Account, umask: int, asked: int = 0o777) -> Rights:
    """What a folder would be that `account` makes in `parent`, asking for the permissions `asked`. Raises OSError.

    It inherits the group of a setgid folder. A default ACL takes the place of the umask (acl(5), "Object creation and
    default ACLs").
    """
    facts = parent.stat()
    gid = facts.st_gid if facts.st_mode & stat.S_ISGID else account.gids[0]
    default = _read_acl(parent, _DEFAULT)
    if default is None:
        return Rights(account.uid, gid, asked & ~umask)
    mode, acl = default
    if acl is None:
        return Rights(account.uid, gid, asked & mode)
    bounded = Acl(acl.users, acl.groups, acl.group_owner, acl.mask & (asked >> 3) & 7)
    return Rights(account.uid, gid, asked & mode & 0o707 | bounded.mask << 3, bounded)


def find_obstacle(account: Account, path: Path, wanted: int) -> Path | None:
    """The first of the folders on the way to `path`, or `path` itself, that keeps this account from it.

    Raises OSError if the way cannot be looked at.
    """
    whole = path.resolve()
    for folder in reversed(whole.parents):
        if not rights_of(folder).allow(account, ENTER):
            return folder
    return None if rights_of(whole).allow(account, wanted) else whole


def _has(rights: int, wanted: int) -> bool:
    return rights & wanted == wanted


def _read_acl(path: Path, name: str) -> tuple[int, Acl | None] | None:
    """The mode that an ACL stands for, and what a mode cannot say. None where there is no ACL.

    The format is that of the kernel, posix_acl_xattr.h: a version, then tag, permissions and id of each entry.
    """
    try:
        data = os.getxattr(path, name)
    except OSError as error:
        if error.errno in _NO_ACL:
            return None
        raise
    entries = list(struct.iter_unpack("<HHI", data[4:]))
    by_tag = {tag: rights for tag, rights, _ in entries}
    mask = by_tag.get(_MASK)
    mode = by_tag[0x01] << 6 | by_tag[_GROUP_OWNER] << 3 | by_tag[0x20]
    if mask is None:
        return mode, None
    users = tuple((id_, rights) for tag, rights, id_ in entries if tag == _USER)
    groups = tuple((id_, rights) for tag, rights, id_ in entries if tag == _GROUP)
    return mode, Acl(users, groups, by_tag[_GROUP_OWNER], mask)
