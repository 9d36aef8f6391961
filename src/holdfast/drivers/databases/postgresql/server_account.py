"""The account under which a private server runs, and the parts of its scratch folder that belong to it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from holdfast.errors import StepError
from holdfast.system import durable

ACCOUNT = "postgres"


def account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None


def let_read(path: Path, gid: int, mode: int) -> None:
    """Let the account under which the server runs read a file, but not write it."""
    if os.geteuid() == 0:
        os.chown(path, 0, gid)
        path.chmod(mode)


def taken_back(made: Path, target: Path) -> Path:
    """Take a dump out of the account's folder by rename, so that it cannot change any more. Raise StepError."""
    durable.move(made, target)
    status = target.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise StepError(
            "the private server left something else in place of its dump",
            next_step="Make a dump with the server to which the directory belongs, and import that.",
        )
    return target


def give_away(folder: Path, uid: int, gid: int) -> None:
    """Give a folder to the account under which the server runs; no other account could write there until now."""
    if os.geteuid() != 0:
        return
    for here, directories, names in os.walk(folder):
        for name in (*directories, *names):
            os.chown(os.path.join(here, name), uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)
