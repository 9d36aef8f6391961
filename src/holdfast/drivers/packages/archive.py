"""Packages as archives: a built tree of one git commit as `.tar.zst`, with its dependencies inside.

For Python the package contains wheels, and a virtual environment is made from them at the release's own path, without
network: a virtual environment cannot be moved, because its scripts name their path.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import asdict, replace

from holdfast.config.similar import did_you_mean
from holdfast.drivers.packages import updates
from holdfast.drivers.packages.checkout import Checkout
from holdfast.drivers.packages.python_dependencies import WHEELS, PythonDependencies
from holdfast.errors import CommandFailedError, DamagedError, NoSpaceError, NotFoundError
from holdfast.model import Newer, Package
from holdfast.system import durable
from holdfast.system.host import Host

MARKER = ".holdfast-release.json"
_FORMAT = 2
_FETCH_SECONDS = 600
_SAFE_ID = re.compile(r"[A-Za-z0-9_+@][A-Za-z0-9._+@-]*")


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
        self._dependencies = PythonDependencies(host, requirements, python, timeout_seconds)

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
        checkout = Checkout(self._host, tree, tarballs.extract_source, self._timeout_seconds)
        checkout.write(self._repository, commit)
        if self._requirements:
            self._dependencies.build(tree, label)
        for command in self._build:
            self._host.run(command, cwd=tree, timeout_seconds=self._timeout_seconds)
        identifier = f"{label}-{commit[:12]}"
        finished = work / "package"
        durable.make_directory(finished)
        unpacked_bytes = tarballs.pack(tree, finished / "package.tar.zst")
        package = Package(
            id=identifier,
            label=label,
            commit=commit,
            digest=_digest(finished / "package.tar.zst"),
            size_bytes=(finished / "package.tar.zst").stat().st_size,
            built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            path=str(self._folder / identifier),
            unpacked_bytes=unpacked_bytes,
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
        _require_room(package, target.parent)
        durable.make_directory(target, 0o755)
        tarballs.extract_package(archive, target)
        if (target / WHEELS).is_dir():
            self._dependencies.install(target)
        durable.sync_filesystem(target)
        durable.write_file(target / MARKER, json.dumps(dict(marker), indent=1), 0o644)


def _require_room(package: Package, folder: Path) -> None:
    """Raise NoSpaceError where a release does not fit."""
    free = durable.free_bytes(folder)
    if free < package.unpacked_bytes:
        raise NoSpaceError(
            f"{folder} has {free >> 20} MiB free; the release {package.label} needs {package.unpacked_bytes >> 20} MiB",
            next_step="Free space there, then run the command again.",
        )


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
