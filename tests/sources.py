"""The guestbook's repository, built once per process and copied: building it takes 38 git processes."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

from holdfast.demo import repository
from holdfast.system.host import Host
from tests.memory import make_folder
from tests.proof import patience
from tests.proof.endings import at_end


def write_repository(target: Path, database: Path | None = None) -> None:
    """Write the repository with all versions; `database` is a module instead of the SQLite one."""
    shutil.copytree(_built(database), target, symlinks=True)


@functools.cache
def _built(database: Path | None) -> Path:
    folder = make_folder("hfr")
    at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    # What is bad is bad soon; what is good may take long on a busy machine.
    repository.build(folder / "repository", Host(), database, broken_timeout=patience.wait(2.0))
    return folder / "repository"
