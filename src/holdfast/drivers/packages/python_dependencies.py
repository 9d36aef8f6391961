"""The dependencies of a Python application: wheels in the package, a virtual environment in each release.

What was built is installed, and nothing is resolved a second time: so a package beside the application, one that only
exists as source, and requirements with digests all work without network.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import CommandFailedError, NoSpaceError, RefusedError
from holdfast.system.host import Host

WHEELS = ".holdfast-wheels"
_PROJECT = "pyproject.toml"
_EXPORTED = ".holdfast-requirements.txt"
_SPARE_BYTES = 1 << 20
_SOME_FAILED = 1  # exit code of compileall after errors in modules
_WITHOUT_SETUPTOOLS = (3, 12)  # from this version on, an environment of `python3 -m venv` does not have it either
_SETUPTOOLS = "setuptools<81"  # the last ones with pkg_resources


def wheels_command(python: str, wanted: list[str], target: Path) -> list[str]:
    common = ["--disable-pip-version-check", "--quiet", "--wheel-dir", str(target)]
    return [python, "-m", "pip", "wheel", *common, *wanted]


def export_command(lock: str, target: str) -> list[str]:
    """Return the command that writes the content of a lock file as requirements."""
    if os.path.basename(lock) == "uv.lock":
        options = ["--frozen", "--no-dev", "--no-emit-project", "--quiet", "--format", "requirements-txt"]
        return ["uv", "export", *options, "--output-file", target]
    return ["poetry", "export", "--only", "main", "--format", "requirements.txt", "--output", target]


def environment_command(python: str, target: Path) -> list[str]:
    # Without pip, which would take most of the time; a release does not change, so it needs none.
    return [python, "-m", "venv", "--without-pip", str(target)]


def install_command(python: str, environment: Path, wheels: list[str]) -> list[str]:
    pip = [python, "-m", "pip", "--python", str(environment / "bin" / "python"), "install"]
    return [*pip, "--disable-pip-version-check", "--quiet", "--no-compile", "--no-index", "--no-deps", *wheels]


def compile_command(environment: Path) -> list[str]:
    # compileall uses every core; pip uses one and takes more than twice the time. `-I` keeps out the working directory,
    # which is the application's and may have modules with the names of standard ones.
    return [str(environment / "bin" / "python"), "-I", "-m", "compileall", "-qq", "-j", "0", str(environment / "lib")]


class PythonDependencies:
    def __init__(self, host: Host, requirements: str, python: str, timeout_seconds: float) -> None:
        self._host = host
        self._requirements = requirements
        self._python = python
        self._timeout_seconds = timeout_seconds

    def build(self, tree: Path, label: str, environment: Mapping[str, str] | None = None) -> None:
        """Build wheels of everything that the requirements of a tree name, directly or not.

        Raise RefusedError where it has no such file, and what Host.run raises.
        """
        if not (tree / self._requirements).is_file():
            raise RefusedError(
                f"{label} has no {self._requirements}", next_step="Correct `source.python.requirements`."
            )
        self._run(wheels_command(self._python, self._wanted(tree), tree / WHEELS), tree, environment)
        (tree / _EXPORTED).unlink(missing_ok=True)  # it names the folder of this build
        self._add_setuptools(tree)

    def _run(self, argv: list[str], tree: Path, environment: Mapping[str, str] | None = None) -> None:
        self._host.run(argv, cwd=tree, environment=environment, timeout_seconds=self._timeout_seconds)

    def _wanted(self, tree: Path) -> list[str]:
        name = os.path.basename(self._requirements)
        if name == _PROJECT:
            return [str((tree / self._requirements).parent)]
        if name not in ("uv.lock", "poetry.lock"):
            return ["--requirement", str(tree / self._requirements)]
        argv = export_command(self._requirements, str(tree / _EXPORTED))
        if shutil.which(argv[0]) is None:
            raise RefusedError(
                f"{self._requirements} is read by {argv[0]}, which is not installed",
                next_step=f"Install {argv[0]}, or name a requirements file as `source.python.requirements`.",
            )
        self._run(argv, (tree / self._requirements).parent)
        return ["--requirement", str(tree / _EXPORTED)]

    def _add_setuptools(self, tree: Path) -> None:
        """Add setuptools where an environment of this Python usually has it: many applications import pkg_resources."""
        argv = [self._python, "-c", "import sys; print(*sys.version_info[:2])"]
        version = tuple(int(number) for number in self._host.capture(argv).split())
        present = any(re.match(r"setuptools-", name) for name in os.listdir(tree / WHEELS))
        if version >= _WITHOUT_SETUPTOOLS or present:
            return
        try:
            self._run(wheels_command(self._python, ["--no-deps", _SETUPTOOLS], tree / WHEELS), tree)
        except CommandFailedError:
            self._host.warn(
                "setuptools could not be added to the release; an application that imports pkg_resources needs it in"
                " its requirements."
            )

    def install(self, release: Path) -> None:
        """Create the environment of a release from the wheels in it, and remove them."""
        wheels = sorted(str(path) for path in (release / WHEELS).glob("*.whl"))
        self._run(environment_command(self._python, release / ".venv"), release)
        if wheels:
            self._run(install_command(self._python, release / ".venv", wheels), release)
        shutil.rmtree(release / WHEELS)
        self._compile(release)

    def _compile(self, release: Path) -> None:
        """Compile modules; files of other Python versions, which some packages bring, stay as they are."""
        argv = compile_command(release / ".venv")
        found = self._host.run(argv, cwd=release, timeout_seconds=self._timeout_seconds, check=False)
        if found.exit_code not in (0, _SOME_FAILED):
            raise CommandFailedError(
                f"compiling the modules of {release.name} ended with exit code {found.exit_code}",
                exit_code_of_command=found.exit_code,
                output_tail=found.output_tail,
            )
        _refuse_full(release)


def _refuse_full(folder: Path) -> None:
    """Raise NoSpaceError for a full disk, because a truncated compiled module cannot be imported."""
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < _SPARE_BYTES:
        raise NoSpaceError(f"{folder} has no room for the compiled modules of its environment")
