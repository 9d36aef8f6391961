"""The tools that Holdfast is measured against, each doing its first and second backup and its restore of one tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 1800


def timed(argv: Sequence[str], *, environment: dict[str, str] | None = None, cwd: Path | None = None) -> float:
    """Seconds of a command until what it wrote is on the disk. The disk is quiet when it starts."""
    os.sync()
    began = time.monotonic()
    done = subprocess.run(
        list(argv),
        timeout=TIMEOUT_SECONDS,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.sync()
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(argv)}` ended with exit code {done.returncode}: {done.stderr[-1000:]}")
    return seconds


def version(program: str) -> str | None:
    """Name and version of a program, or None where it is not installed."""
    if shutil.which(program) is None:
        return None
    flag = {"restic": "version", "nginx": "-v"}.get(program, "--version")
    done = subprocess.run([program, flag], capture_output=True, text=True, timeout=30, check=False)
    number = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return f"{program} {number[0]}" if number else program


@dataclass(frozen=True)
class Times:
    first: float
    second: float | None
    restore: float | None


def copy(source: Path, folder: Path) -> Times:
    target = folder / "copy"
    return Times(timed(["cp", "-a", str(source), str(target)]), None, None)


def tar(source: Path, folder: Path) -> Times:
    return Times(timed(["tar", "-cf", str(folder / "plain.tar"), "-C", str(source.parent), source.name]), None, None)


def tar_gzip(source: Path, folder: Path) -> Times:
    return Times(
        timed(["tar", "-czf", str(folder / "zipped.tar.gz"), "-C", str(source.parent), source.name]), None, None
    )


def restic(source: Path, folder: Path) -> Times:
    environment = {
        "RESTIC_REPOSITORY": str(folder / "restic"),
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": str(folder / "restic-cache"),
    }
    timed(["restic", "--quiet", "init"], environment=environment)
    backup = ["restic", "--quiet", "backup", str(source)]
    first, second = timed(backup, environment=environment), timed(backup, environment=environment)
    restore = ["restic", "--quiet", "restore", "latest", "--target", str(folder / "restic-out")]
    return Times(first, second, timed(restore, environment=environment))


def borg(source: Path, folder: Path) -> Times:
    environment = {
        "BORG_REPO": str(folder / "borg"),
        "BORG_PASSPHRASE": "bench",
        "BORG_BASE_DIR": str(folder / "borg-own"),
    }
    timed(["borg", "init", "--encryption", "repokey-blake2"], environment=environment)

    def backup(name: str) -> float:
        return timed(["borg", "create", f"::{name}", source.name], environment=environment, cwd=source.parent)

    first, second = backup("first"), backup("second")
    out = folder / "borg-out"
    out.mkdir()
    return Times(first, second, timed(["borg", "extract", "::second"], environment=environment, cwd=out))


def rsync(source: Path, folder: Path) -> Times:
    """Snapshots that share what did not change as hard links."""
    first = timed(["rsync", "-a", f"{source}/", str(folder / "rsync-first")])
    link = f"--link-dest={folder / 'rsync-first'}"
    return Times(first, timed(["rsync", "-a", link, f"{source}/", str(folder / "rsync-second")]), None)


PEERS = {"cp": copy, "tar": tar, "gzip": tar_gzip, "rsync": rsync, "restic": restic, "borg": borg}
