"""Packages of Debian, unpacked into a folder: from the machine's own release, or from another one."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from tests.realworld.application import UnavailableError, call

_SOURCES = Path("/etc/apt/sources.list.d")


def unpack(packages: list[str], target: Path, scratch: Path, suite: str = "") -> None:
    """Download packages into scratch and unpack them below target. Raise UnavailableError."""
    place = scratch / (suite or "own")
    for name in ("etc", "lists/partial", "cache/archives/partial", "packages"):
        (place / name).mkdir(parents=True)
    for path in (scratch, place, place / "packages"):
        path.chmod(0o777)  # apt downloads as an account of its own
    options = _options(place, suite) if suite else []
    call(["apt-get", *options, "download", *packages], place / "packages")
    for package in sorted((place / "packages").glob("*.deb")):
        call(["dpkg", "-x", str(package), str(target)], place)


def _options(place: Path, suite: str) -> list[str]:
    """Return options with which apt knows another suite, without a change of the machine's settings."""
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for file in sorted(_SOURCES.glob("*.sources")):
        for part in file.read_text().split("\n\n"):
            if re.search(rf"^Suites:.*\b{own}(?:\s|$)", part, re.MULTILINE):
                other = re.sub(r"^Suites:.*$", f"Suites: {suite}", part, flags=re.MULTILINE)
                (place / "etc" / "other.sources").write_text(other + "\n")
                options = [
                    "-oDir::Etc::sourcelist=/dev/null",
                    f"-oDir::Etc::sourceparts={place}/etc",
                    f"-oDir::State::lists={place}/lists",
                    f"-oDir::Cache={place}/cache",
                ]
                call(["apt-get", *options, "update"], place)
                return options
    raise UnavailableError(f"no source of packages for {own} in {_SOURCES}")
