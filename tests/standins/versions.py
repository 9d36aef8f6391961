"""A git repository of an application of the tests: its first version, and others with what each changes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def write(folder: Path, application: Path, first: str, changes: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
    """Write the repository with every version as a tag; `changes` says of each its base and its files."""
    shutil.copytree(application, folder)
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)
    _git(folder, "init", "--quiet", "--initial-branch=master")
    _commit(folder, first, {})
    for tag, (base, files) in changes.items():
        _git(folder, "checkout", "--quiet", base)
        _commit(folder, tag, files)
    _git(folder, "checkout", "--quiet", "master")


def _commit(folder: Path, tag: str, files: Mapping[str, str]) -> None:
    for name, text in {**files, "VERSION": f"{tag.removeprefix('v')}\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", f"The application as of {tag}")
    _git(folder, "tag", tag)


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=S", "-c", "user.email=s@example.invalid"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)
