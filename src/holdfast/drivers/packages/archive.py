"""Packages as archives: a built tree of one git commit as `.tar.zst`, with its dependencies inside.

For Python the package contains wheels, and a virtual environment is made from them at the release's own path, without
network: a virtual environment cannot be moved, because its scripts name their path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import asdict, replace

from holdfast.config.similar import did_you_mean
from holdfast.drivers.packages import updates
from holdfast.errors import CommandFailedError, DamagedError, NoSpaceError, NotFoundError, RefusedError
from holdfast.model import Newer, Package
from holdfast.system import durable
from holdfast.system.host import Host

MARKER = ".holdfast-release.json"
WHEELS = ".holdfast-wheels"
_FORMAT = 1
_SPARE_BYTES = 1 << 20
_FETCH_SECONDS = 600
_SOME_FAILED = 1  # exit code of compileall after errors in modules
_SAFE_ID = re.compile(r"[A-Za-z0-9_+@][A-Za-z0-9._+@-]*")


def archive_command(commit: str, target: Path) -> list[str]:
    return ["git", "archive", "--format=tar", f"--output={target}", commit]


def wheels_command(python: str, requirements: Path, target: Path) -> list[str]:
    return [
        python,
        "-m",
        "pip",
        "wheel",
        "--disable-pip-version-check",
        "--quiet",
        "--wheel-dir",
        str(target),
        "--requirement",
        str(requirements),
    ]


def environment_command(python: str, target: Path) -> list[str]:
    # Without pip, which would take most of the time; a release does not change, so it needs none.
    return [python, "-m", "venv", "--without-pip", str(target)]


def install_command(python: str, environment: Path, wheels: Path, requirements: Path) -> list[str]:
    return [
        python,
        "-m",
        "pip",
        "--python",
        str(environment / "bin" / "python"),
        "install",
        "--disable-pip-version-check",
        "--quiet",
        "--no-compile",
        "--no-index",
        "--find-links",
        str(wheels),
        "--requirement",
        str(requirements),
    ]


def compile_command(environment: Path) -> list[str]:
    # compileall uses every core; pip uses one and takes more than twice the time. `-I` keeps out the working directory,
    # which is the application's and may have modules with the names of standard ones.
    return [str(environment / "bin" / "python"), "-I", "-m", "compileall", "-qq", "-j", "0", str(environment / "lib")]


class ArchivePackages:
    def __init__(
        self,
        folder: Path,
        repository: Path,
        host: Host,
        *,
        build: Sequence[Sequence[str]] = (),
        requirements: str = "",
        python: str = sys.executable,
        timeout_seconds: float = 3600,
    ) -> None:
        self._folder = folder
        self._repository = repository
        self._host = host
        self._build = [list(command) for command in build]
        self._requirements = requirements
        self._python = python
        self._timeout_seconds = timeout_seconds

    # --- references --------------------------------------------------------------------------------

    def _git(self, *arguments: str) -> str:
        return self._host.capture(["git", "-C", str(self._repository), *arguments]).strip()

    def resolve(self, reference: str) -> tuple[str, str]:
        if reference.startswith("-"):
            raise NotFoundError(f"{reference!r} is not a valid git reference")
        for candidate in (f"refs/tags/{reference}", reference, f"refs/remotes/origin/{reference}"):
            try:
                commit = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}")
            except CommandFailedError as error:
                if error.exit_code_of_command == 127:
                    raise
                continue
            # Branch names may contain slashes, which a label in a path must not.
            label = reference.replace("/", "-") if not commit.startswith(reference) else commit[:12]
            return commit, label
        question = did_you_mean(reference, self._git("for-each-ref", "--format=%(refname:short)").split())
        raise NotFoundError(
            f"{self._repository} has no tag, branch or commit {reference!r}",
            next_step=(
                f"{question} Run `git -C {self._repository} tag` to list tags, or `git fetch --tags` to get new ones."
            ).strip(),
        )

    def file_of(self, commit: str, name: str) -> str | None:
        if not self._git("ls-tree", "--name-only", commit, "--", name):
            return None
        return self._host.capture(["git", "-C", str(self._repository), "show", f"{commit}:{name}"])

    def fetch(self) -> None:
        argv = ["git", "-C", str(self._repository), "fetch", "--tags", "--quiet"]
        self._host.capture(argv, timeout_seconds=_FETCH_SECONDS)

    def precedes(self, commit: str, later: str) -> bool:
        try:
            self._git("merge-base", "--is-ancestor", commit, later)
        except CommandFailedError:
            return False
        return commit != later

    def newer(self, commit: str) -> Newer:
        return updates.newer(self._git, commit)

    def _recipe(self) -> str:
        recipe = json.dumps([_FORMAT, self._build, self._requirements, self._python if self._requirements else ""])
        return hashlib.sha256(recipe.encode()).hexdigest()[:8]

    # --- building ----------------------------------------------------------------------------------

    def build(self, commit: str, label: str, run: str) -> Package:
        known = self._find(commit)
        if known is not None and self._stored(known.id)[1] == self._recipe() and _is_whole(known):
            return known
        from holdfast.drivers.packages import tarballs  # noqa: PLC0415 # most commands only list packages

        durable.make_directory(self._folder)
        work = self._folder / "tmp" / run
        durable.remove_tree(work)
        tree = work / "tree"
        durable.make_directory(tree, 0o755)
        self._host.run(
            archive_command(commit, work / "source.tar"),
            cwd=self._repository,
            timeout_seconds=self._timeout_seconds,
        )
        tarballs.extract_source(work / "source.tar", tree)
        (work / "source.tar").unlink()
        if self._requirements:
            if not (tree / self._requirements).is_file():
                raise RefusedError(
                    f"{label} has no {self._requirements}", next_step="Correct `source.python.requirements`."
                )
            self._host.run(
                wheels_command(self._python, tree / self._requirements, tree / WHEELS),
                cwd=tree,
                timeout_seconds=self._timeout_seconds,
            )
        for command in self._build:
            self._host.run(command, cwd=tree, timeout_seconds=self._timeout_seconds)
        identifier = f"{label}-{commit[:12]}"
        finished = work / "package"
        durable.make_directory(finished)
        tarballs.pack(tree, finished / "package.tar.zst")
        package = Package(
            id=identifier,
            label=label,
            commit=commit,
            digest=_digest(finished / "package.tar.zst"),
            size_bytes=(finished / "package.tar.zst").stat().st_size,
            built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            path=str(self._folder / identifier),
        )
        self._store(finished, package, self._recipe())
        durable.remove_tree(work)
        return package

    def _store(self, finished: Path, package: Package, recipe: str) -> None:
        """Make a finished package visible by rename, after moving away one of the same id."""
        durable.write_file(finished / "manifest.json", json.dumps({**asdict(package), "recipe": recipe}, indent=1))
        durable.sync_filesystem(finished)
        target = self._folder / package.id
        if target.exists():
            replaced = finished.parent / "replaced"
            durable.remove_tree(replaced)
            durable.rename(target, replaced)
        durable.rename(finished, target)

    def abandon(self, run: str) -> None:
        work = self._folder / "tmp" / run
        replaced = work / "replaced"
        if (replaced / "manifest.json").exists():
            target = self._folder / _described((replaced / "manifest.json").read_bytes())[0].id
            if not target.exists():
                durable.rename(replaced, target)
        durable.remove_tree(work)

    def adopt(self, archive: Path) -> Package:
        """Adopt an archive with the manifest `code.json` in its folder, as a backup keeps them. Raise DamagedError."""
        saved, recipe = _read_record(archive.with_name("code.json"))
        if _digest(archive) != saved.digest:
            raise DamagedError(f"{archive} is damaged: its digest does not match")
        known = self._find(saved.id)
        if known is not None and known.digest == saved.digest:
            return known
        work = self._folder / "tmp" / f"adopt-{saved.id}"
        durable.remove_tree(work)
        finished = work / "package"
        durable.make_directory(finished)
        durable.clone_or_copy(archive, finished / "package.tar.zst")
        package = replace(saved, path=str(self._folder / saved.id))
        self._store(finished, package, recipe)
        durable.remove_tree(work)
        return package

    # --- the store ---------------------------------------------------------------------------------

    def _stored(self, identifier: str) -> tuple[Package, str]:
        """Return a package of the store, and the recipe by which it was built."""
        folder = self._folder / identifier
        package, recipe = _described((folder / "manifest.json").read_bytes())
        return replace(package, path=str(folder)), recipe

    def packages(self) -> list[Package]:
        if not self._folder.is_dir():
            return []
        found = []
        for folder in sorted(self._folder.iterdir()):
            if (folder / "manifest.json").exists():
                found.append(self._stored(folder.name)[0])
        return sorted(found, key=lambda package: package.built_at)

    def _find(self, reference: str) -> Package | None:
        for package in reversed(self.packages()):
            if reference in (package.id, package.commit, package.label):
                return package
        return None

    def remove(self, id: str) -> None:
        target = self._folder / id
        if target.exists():
            dead = self._folder / "tmp" / f"removed-{id}"
            durable.make_directory(dead.parent)
            durable.remove_tree(dead)
            durable.rename(target, dead)
            durable.remove_tree(dead)

    # --- releases ----------------------------------------------------------------------------------

    def unpack(self, package: Package, target: Path, marker: Mapping[str, object]) -> None:
        archive = Path(package.path) / "package.tar.zst"
        if _digest(archive) != package.digest:
            raise DamagedError(
                f"package {package.id} is damaged: the digest of {archive} does not match",
                state="Nothing was changed.",
                next_step=f"Run `holdfast package build {package.commit}` to build it again.",
            )
        from holdfast.drivers.packages import tarballs  # noqa: PLC0415 # likewise

        durable.remove_tree(target)
        durable.make_directory(target, 0o755)
        tarballs.extract_package(archive, target)
        if (target / WHEELS).is_dir():
            self._host.run(
                environment_command(self._python, target / ".venv"), cwd=target, timeout_seconds=self._timeout_seconds
            )
            self._host.run(
                install_command(self._python, target / ".venv", target / WHEELS, target / self._requirements),
                cwd=target,
                timeout_seconds=self._timeout_seconds,
            )
            shutil.rmtree(target / WHEELS)
            self._compile(target)
        durable.sync_filesystem(target)
        durable.write_file(target / MARKER, json.dumps(dict(marker), indent=1), 0o644)

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


class _Recipe(msgspec.Struct):
    recipe: str = ""


def _described(manifest: bytes) -> tuple[Package, str]:
    """Return the package that a manifest describes, and the recipe by which it was built. Raise DecodeError."""
    return msgspec.json.decode(manifest, type=Package), msgspec.json.decode(manifest, type=_Recipe).recipe


def _read_record(path: Path) -> tuple[Package, str]:
    """Return the identity of a package in a backup, and its recipe. Raise DamagedError for an invalid record."""
    try:
        package, recipe = _described(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise DamagedError(f"{path} is not a valid record of a package: {error}") from error
    if not _SAFE_ID.fullmatch(package.id):
        raise DamagedError(f"{path} names a package outside the store: {package.id!r}")
    return package, recipe


def _is_whole(package: Package) -> bool:
    try:
        return _digest(Path(package.path) / "package.tar.zst") == package.digest
    except DamagedError:
        return False


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
