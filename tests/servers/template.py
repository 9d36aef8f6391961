"""Data directories of servers, made once per machine and copied: making one takes seconds of a processor."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path


def _cache() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/holdfast-tests/data")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast-tests" / "data"


def write_data_directory(target: Path, program: str, arguments: Sequence[str], make: Callable[[Path], None]) -> None:
    """Write a server's new data directory; `make` does so where there is none of this program and arguments."""
    found = shutil.which(program)
    assert found is not None, program
    status = os.stat(found)
    key = hashlib.sha256(
        f"{os.path.realpath(found)} {status.st_size} {status.st_mtime_ns} {arguments}".encode()
    ).hexdigest()
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    template = cache / f"{os.path.basename(program)}-{key[:16]}"
    with open(f"{template}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            make(target)
            unfinished = template.with_name(f"{template.name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            _copy(target, unfinished)
            unfinished.rename(template)
            return
    _copy(template, target)


def _copy(source: Path, target: Path) -> None:
    """Copy with owners and rights, by reference where the filesystem can."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)
