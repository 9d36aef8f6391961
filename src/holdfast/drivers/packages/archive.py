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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import asdict, replace

from holdfast.config import own_files
from holdfast.config.similar import did_you_mean
from holdfast.drivers.packages import updates
from holdfast.drivers.packages.checkout import Checkout
from holdfast.drivers.packages.python_dependencies import WHEELS, PythonDependencies
from holdfast.drivers.protocols.packages import EngineLogin
from holdfast.errors import CommandFailedError, DamagedError, NoSpaceError, NotFoundError
from holdfast.model.packages import PATCHED, RESERVED_NAMES, AppliedPatch, Newer, Package, Patch, PatchFit, StoredImage
from holdfast.system import durable
from holdfast.system.host import Host

if TYPE_CHECKING:
    from holdfast.drivers.packages.looks import PackageLooks

MARKER = ".holdfast-release.json"
_REMOVED = "removed-"
_FORMAT = 3
_ARCHIVE, _RECORD, _CONFIGURATION = "package.tar.zst", "manifest.json", "release.toml"
_EARLIEST = 315532800  # 1980: wheels are zip files, which know no earlier time
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
        assets: Sequence[Sequence[str]] = (),
        patches: str = "",
    ) -> None:
        """Build by the commands of `build`, then apply the patches in the folder `patches`, then run `assets`."""
        self._folder = folder
        self._repository = repository
        self._host = host
        self._build = [list(command) for command in build]
        self._assets = [list(command) for command in assets]
        self._patches = patches
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
        try:
            question = did_you_mean(reference, self._git("for-each-ref", "--format=%(refname:short)").split())
        except CommandFailedError as error:
            raise NotFoundError(
                f"{self._repository} is not a git repository, so it has no {reference!r}",
                next_step="Correct `source.repository`, or deploy what another machine built: holdfast package deploy"
                " PACKAGE",
            ) from error
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

    def recipe(self, *, assets: bool) -> str:
        parts: list[object] = [_FORMAT, self._build, self._requirements, self._python if self._requirements else ""]
        parts += [self._patches, self._assets if assets else []]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    # --- building ----------------------------------------------------------------------------------

    def named(self, commit: str, label: str, *, assets: bool = True) -> str:
        known = self._same(commit, self.recipe(assets=assets))
        return known.id if known is not None else f"{label}-{commit[:12]}"

    def _same(self, commit: str, recipe: str) -> Package | None:
        """Return the newest package of a commit that was built in the same way and never patched."""
        for package in reversed(self.packages()):
            if package.commit == commit and not package.patches and package.recipe == recipe:
                return package
        return None

    def build(self, commit: str, label: str, run: str, *, id: str = "", note: str = "", assets: bool = True) -> Package:
        recipe = self.recipe(assets=assets)
        known = self._same(commit, recipe)
        if id and (exact := self._find(id)) is not None and (exact.commit, exact.recipe) == (commit, recipe):
            known = exact
        if known is not None and _is_whole(known):
            return known if id in ("", known.id) else self._renamed(known, id, label, note, run)
        from holdfast.drivers.packages import patches, tarballs  # noqa: PLC0415 # most commands only list packages

        durable.make_directory(self._folder)
        work = self._folder / "tmp" / run
        durable.remove_tree(work)
        tree = work / "tree"
        durable.make_directory(tree, 0o755)
        committed_at = int(self._git("show", "--no-patch", "--format=%ct", commit))
        checkout = Checkout(self._host, tree, tarballs.extract_source, self._timeout_seconds)
        checkout.write(self._repository, commit)
        times = tarballs.times(tree)
        clock = {"SOURCE_DATE_EPOCH": str(max(committed_at, _EARLIEST))}
        if self._requirements:
            self._dependencies.build(tree, label, clock)
        self._run(self._build, tree, clock)
        patched = patches.apply_folder(self._host, tree, self._patches, committed_at)
        if assets:
            self._run(self._assets, tree, clock)
        tarballs.settle(tree, committed_at, times, patched)
        package = Package(
            id=id or f"{label}-{commit[:12]}",
            label=label,
            commit=commit,
            digest="",
            size_bytes=0,
            built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            path="",
            note=note,
            committed_at=committed_at,
            recipe=recipe,
        )
        return self._packed(tree, package, work)

    def _run(self, commands: Sequence[Sequence[str]], tree: Path, environment: Mapping[str, str]) -> None:
        for command in commands:
            self._host.run(command, cwd=tree, environment=environment, timeout_seconds=self._timeout_seconds)

    def _packed(self, tree: Path, package: Package, work: Path) -> Package:
        """Pack a tree and store it as a package, which gets its digests here."""
        from holdfast.drivers.packages import tarballs  # noqa: PLC0415 # likewise

        finished = work / "package"
        durable.make_directory(finished)
        unpacked_bytes, content = tarballs.pack(tree, finished / _ARCHIVE)
        durable.write_file(finished / _CONFIGURATION, own_files.in_folder(tree) or "")
        package = replace(
            package,
            digest=_digest(finished / _ARCHIVE),
            size_bytes=(finished / _ARCHIVE).stat().st_size,
            path=str(self._folder / package.id),
            unpacked_bytes=unpacked_bytes,
            content=content,
        )
        self._store(finished, package)
        durable.remove_tree(work)
        return package

    def _renamed(self, known: Package, id: str, label: str, note: str, run: str) -> Package:
        """Store what is built already under another name, too."""
        package = replace(known, id=id, label=label, note=note, path=str(self._folder / id))
        work = self._folder / "tmp" / run
        durable.remove_tree(work)
        finished = work / "package"
        durable.make_directory(finished)
        durable.clone_or_copy(Path(known.path) / _ARCHIVE, finished / _ARCHIVE)
        durable.write_file(finished / _CONFIGURATION, self.configuration_of(known) or "")
        self._store(finished, package)
        durable.remove_tree(work)
        return package

    # --- packages of other machines ------------------------------------------------------------------

    def incoming(self, run: str) -> Path:
        place = self._folder / "tmp" / run / "incoming"
        durable.remove_tree(place)
        durable.make_directory(place)
        return place

    def receive(self, package: Package, configuration: str, run: str) -> Package:
        place = self._folder / "tmp" / run / "incoming"
        if not _is_safe(package.id):
            raise DamagedError(f"a package of another machine has a name that no package may have: {package.id!r}")
        if _digest(place / _ARCHIVE) != package.digest:
            raise DamagedError(f"the archive of {package.id} is damaged: its digest does not match")
        durable.write_file(place / _CONFIGURATION, configuration)
        finished = place.with_name("package")
        durable.remove_tree(finished)
        durable.rename(place, finished)
        package = replace(package, path=str(self._folder / package.id))
        self._store(finished, package)
        durable.remove_tree(finished.parent)
        return package

    def push_images(self, package: Package, login: EngineLogin) -> Mapping[str, StoredImage]:
        return {}

    def pull_images(self, package: Package, images: Mapping[str, StoredImage], login: EngineLogin, run: str) -> None:
        """Do nothing: services that are no containers need no images."""

    def configuration_of(self, package: Package) -> str | None:
        try:
            return (self._folder / package.id / _CONFIGURATION).read_text()
        except FileNotFoundError:
            return own_files.from_each(partial(self.file_of, package.commit))

    def whole(self, package: Package) -> bool:
        return _is_whole(package)

    # --- patches -------------------------------------------------------------------------------------

    def _looks(self) -> PackageLooks:
        from holdfast.drivers.packages.looks import PackageLooks  # noqa: PLC0415 # likewise

        return PackageLooks(self._host, self._folder / "tmp", self._require_whole)

    def fit_patch(self, package: Package, name: str, text: bytes, strip: int | None, run: str) -> PatchFit:
        return self._looks().fit(package, name, text, strip, run)

    def why_not_reverted(self, package: Package, patch: AppliedPatch, run: str) -> str:
        return self._looks().why_not_reverted(package, patch, run)

    def patch_text(self, package: Package, patch: AppliedPatch, run: str) -> bytes:
        return self._looks().text(package, patch, run)

    def patch(
        self, package: Package, add: Sequence[Patch], remove: Sequence[str], run: str, *, applied_at: str
    ) -> Package:
        from holdfast.drivers.packages import patches, tarballs  # noqa: PLC0415 # likewise

        work = self._folder / "tmp" / run
        durable.remove_tree(work)
        tree = work / "tree"
        durable.make_directory(tree, 0o755)
        self._require_whole(package)
        tarballs.extract_package(Path(package.path) / _ARCHIVE, tree)
        present = patches.change(self._host, tree, package.committed_at, add, remove, applied_at)
        tarballs.settle_folders(tree, package.committed_at)
        root = package.id.partition(PATCHED)[0]
        digest = hashlib.sha256("".join(one.id for one in present).encode()).hexdigest()[:8]
        made = replace(package, id=f"{root}{PATCHED}{digest}" if present else root, patches=present)
        known = self._find(made.id)
        if known is not None and _is_whole(known):
            durable.remove_tree(work)
            return known
        return self._packed(tree, made, work)

    def _store(self, finished: Path, package: Package) -> None:
        """Make a finished package visible by rename, after moving away one of the same id."""
        durable.write_file(finished / _RECORD, json.dumps(asdict(package), indent=1, default=asdict))
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
        if (replaced / _RECORD).exists():
            target = self._folder / _described((replaced / _RECORD).read_bytes()).id
            if not target.exists():
                durable.rename(replaced, target)
        durable.remove_tree(work)

    def adopt(self, archive: Path) -> Package:
        """Adopt an archive with its record `code.json` in its folder, as a backup keeps them. Raise DamagedError."""
        saved = _read_record(archive.with_name("code.json"))
        if _digest(archive) != saved.digest:
            raise DamagedError(f"{archive} is damaged: its digest does not match")
        known = self._find(saved.id)
        if known is not None and known.digest == saved.digest:
            return known
        work = self._folder / "tmp" / f"adopt-{saved.id}"
        durable.remove_tree(work)
        finished = work / "package"
        durable.make_directory(finished)
        durable.clone_or_copy(archive, finished / _ARCHIVE)
        package = replace(saved, path=str(self._folder / saved.id))
        self._store(finished, package)
        durable.remove_tree(work)
        return package

    # --- the store ---------------------------------------------------------------------------------

    def _stored(self, identifier: str) -> Package:
        folder = self._folder / identifier
        return replace(_described((folder / _RECORD).read_bytes()), path=str(folder))

    def packages(self) -> list[Package]:
        if not self._folder.is_dir():
            return []
        found = []
        for folder in sorted(self._folder.iterdir()):
            if (folder / _RECORD).exists():
                found.append(self._stored(folder.name))
        return sorted(found, key=lambda package: package.built_at)

    def _find(self, reference: str) -> Package | None:
        return next((package for package in self.packages() if package.id == reference), None)

    def remove(self, *ids: str) -> None:
        tmp = self._folder / "tmp"
        for dead in tmp.glob(f"{_REMOVED}*"):
            durable.remove_tree(dead)
        for id in ids:
            target, dead = self._folder / id, tmp / f"{_REMOVED}{id}"
            if target.exists():
                durable.make_directory(tmp)
                durable.rename(target, dead)
                durable.remove_tree(dead)

    # --- releases ----------------------------------------------------------------------------------

    def unpack(self, package: Package, target: Path, marker: Mapping[str, object]) -> None:
        self._require_whole(package)
        from holdfast.drivers.packages import tarballs  # noqa: PLC0415 # likewise

        durable.remove_tree(target)
        _require_room(package, target.parent)
        durable.make_directory(target, 0o755)
        tarballs.extract_package(Path(package.path) / _ARCHIVE, target)
        if (target / WHEELS).is_dir():
            self._dependencies.install(target)
        durable.sync_filesystem(target)
        durable.write_file(target / MARKER, json.dumps(dict(marker), indent=1), 0o644)

    def _require_whole(self, package: Package) -> None:
        """Raise DamagedError for a package whose archive is not the one that was built."""
        archive = Path(package.path) / _ARCHIVE
        if _digest(archive) != package.digest:
            raise DamagedError(
                f"package {package.id} is damaged: the digest of {archive} does not match",
                state="Nothing was changed.",
                next_step=f"Run `holdfast package build {package.commit}` to build it again.",
            )


def _require_room(package: Package, folder: Path) -> None:
    """Raise NoSpaceError where a release does not fit."""
    free = durable.free_bytes(folder)
    if free < package.unpacked_bytes:
        raise NoSpaceError(
            f"{folder} has {free >> 20} MiB free; the release {package.label} needs {package.unpacked_bytes >> 20} MiB",
            next_step="Free space there, then run the command again.",
        )


def _described(manifest: bytes) -> Package:
    """Return the package that a manifest describes. Raise DecodeError."""
    return msgspec.json.decode(manifest, type=Package)


def _read_record(path: Path) -> Package:
    """Return the identity of a package in a backup. Raise DamagedError for an invalid record."""
    try:
        package = _described(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise DamagedError(f"{path} is not a valid record of a package: {error}") from error
    if not _is_safe(package.id):
        raise DamagedError(f"{path} names a package outside the store: {package.id!r}")
    return package


def _is_safe(id: str) -> bool:
    return _SAFE_ID.fullmatch(id) is not None and id not in RESERVED_NAMES


def _is_whole(package: Package) -> bool:
    try:
        return _digest(Path(package.path) / _ARCHIVE) == package.digest
    except DamagedError:
        return False


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
