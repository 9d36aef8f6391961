"""The account that a private server runs as, and what of its scratch folder is that account's."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from holdfast.errors import StepError

ACCOUNT = "postgres"


def account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None


def let_read(path: Path, gid: int, mode: int) -> None:
    """By the account that the server runs as, which cannot write there."""
    if os.geteuid() == 0:
        os.chown(path, 0, gid)
        path.chmod(mode)


def taken_back(made: Path, target: Path) -> Path:
    """A dump out of the account's folder, by rename: what it is cannot change any more. Raises StepError."""
    os.rename(made, target)
    status = target.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise StepError(
            "the private server left something else in place of its dump",
            next_step="Make a dump of it by the server that it is of, and import that.",
        )
    return target


def give_away(folder: Path, uid: int, gid: int) -> None:
    """To the account that the server runs as; nobody else could write there until now."""
    if os.geteuid() != 0:
        return
    for here, directories, names in os.walk(folder):
        for name in (*directories, *names):
            os.chown(os.path.join(here, name), uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)
