"""The accounts of this machine under which an application runs.

Holdfast often runs as root, and the application never should: a plugin of the application could otherwise do at the
next upgrade whatever root can.
"""

from __future__ import annotations

import os
import pwd

import msgspec

from holdfast.errors import ConfigurationError


class Account(msgspec.Struct, frozen=True):
    """An account with its ids and groups; without ids it is that of this process."""

    name: str = ""
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, int, tuple[int, ...]] | None:
        """Return what a process must become; None if it stays what it is."""
        return (self.uid, self.gid, self.groups) if self.uid is not None and self.gid is not None else None


OWN = Account()
"""The account of this process."""


def account_of(user: str | None) -> Account:
    """Return the account of that name for a process of this machine; only root can start one as another account.

    Raise ConfigurationError if there is no such account.
    """
    if not user or os.geteuid() != 0:
        return OWN
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(
            f"there is no account {user!r} on this machine",
            next_step=f"Create it, for example with `useradd --system {user}`, or correct `user` in holdfast.toml.",
        ) from None
    groups = tuple(sorted(set(os.getgrouplist(user, found.pw_gid))))
    return Account(user, found.pw_uid, found.pw_gid, groups)
