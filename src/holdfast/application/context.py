"""The open drivers of one application, as steps use them; app.py builds this object."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from holdfast.config.load import ResolvedConfig
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.databases import Database, OfflineDataDirectory
from holdfast.drivers.protocols.datasets import Dataset
from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.gates import Gate, Proxy
from holdfast.drivers.protocols.indices import SearchIndex
from holdfast.drivers.protocols.packages import Packages, Registry
from holdfast.drivers.protocols.runtimes import Runtime
from holdfast.drivers.protocols.sanitizing import Sanitizer
from holdfast.drivers.protocols.vaults import Vault
from holdfast.engine.journal import Journal
from holdfast.errors import ConfigurationError, NoSpaceError, OwnerMismatchError, RefusedError
from holdfast.model import Release
from holdfast.model.packages import PATCHED, Package
from holdfast.system import confined, durable
from holdfast.system.child_environment import STANDARD_PATH
from holdfast.system.host import Host

OWNER_FILE = "owner.json"
RESERVE_BYTES = 4 << 20
_PROGRAMS = (".venv/bin", "node_modules/.bin", "vendor/bin")
"""Where the package managers of Python, Node and PHP put programs."""


class ApplicationContext(msgspec.Struct):
    loaded: ResolvedConfig
    host: Host
    journal: Journal
    runtime: Runtime
    databases: Mapping[str, Dataset]
    files: Mapping[str, Files]
    vault: Vault | None
    gate: Gate
    packages: Packages
    gate_runtime: Runtime
    """The runtime of the gate's own server, which always runs on this machine."""
    indices: Mapping[str, SearchIndex] = msgspec.field(default_factory=dict)
    """Search indices, which are made from the databases; no operation on those fails because of them."""
    undiscovered: str = ""
    """Why databases that belong to the application may be unknown; empty if all are known."""
    cold: Mapping[str, OfflineDataDirectory] = msgspec.field(default_factory=dict)
    """Drivers for databases whose files can be read without their server."""
    sanitizers: Mapping[str, Sanitizer] = msgspec.field(default_factory=dict)
    """Readers for sanitized dumps, for databases whose kind has one."""
    proxy: Proxy | None = None
    """The gate, if it is the user's own proxy."""
    registry: Registry | None = None
    """The registry of packages that all environments of the project share."""
    containers: Containers | None = None
    """The runtime, if it has containers, for what only they have: names, volumes, and others than Holdfast's."""

    @property
    def releases(self) -> Path:
        return self.loaded.path(self.loaded.configuration.releases.path)

    @property
    def failed_releases(self) -> Path:
        """Return the folder in which the files of a release that failed are kept for a while."""
        return self.releases / ".failed"

    @property
    def current_link(self) -> Path:
        return self.releases.parent / "current"

    def sql_database(self, name: str) -> Database:
        """Return a database that answers queries. Raise ConfigurationError for another one, as at the opening."""
        found = self.databases[name]
        if not isinstance(found, Database):
            raise ConfigurationError(
                "holdfast.toml is wrong",
                [f"databases.{name}: the kind {found.kind} answers no SQL, which migrations and references need"],
            )
        return found

    def operation_folder(self, operation: str) -> Path:
        """Return the folder in which an operation stores what does not fit into its facts; create it if necessary."""
        folder = self.loaded.state / "operations" / operation
        durable.make_directory(folder)
        return folder

    def current_release(self) -> Release | None:
        """Return the release of the newest commit record that names one; None before the installation."""
        return next((release for release in self.committed_releases()), None)

    def committed_releases(self) -> Iterator[Release]:
        """Yield the release of each commit that names one, newest first, with the package that it was made of."""
        for record in self.journal.committed():
            if value := record.commit_facts.get("release"):
                package = record.commit_facts.get("package")
                yield Release(**{**value, "package": package or value["package"]})

    def find_package(self, reference: str) -> Package | None:
        """Return the stored package with that id, or else the newest unpatched one with that label or commit."""
        known = self.packages.packages()
        for package in reversed(known):
            if reference == package.id:
                return package
        for package in reversed(known):
            if reference in (package.commit, package.label) and not package.patches:
                return package
        return None

    def package_of(self, release: Release) -> Package | None:
        """Return the package of a release, or an equal one; None where there is none. A patched one has no equal."""
        found = self.find_package(release.package)
        if found is None and PATCHED not in release.package:
            return self.find_package(release.commit)
        return found

    def barrier_paths(self) -> list[str]:
        """Return every path that must be durable before a commit: state, releases, datasets, databases, vault."""
        configuration = self.loaded.configuration
        paths = [self.loaded.state, self.releases]
        paths += self.runtime.storage_paths()
        paths += [self.loaded.path(item.path) for item in configuration.files.values()]
        paths += [folder.parent for folder in self._private_folders()]
        paths += self._vault_folders()
        return [str(path) for path in paths]

    def places(self) -> list[Path]:
        """Return the paths of all datasets and of Holdfast's own files, with the side files of each database file."""
        configuration = self.loaded.configuration
        found = [self.loaded.state, self.releases, self.current_link]
        found += [self.loaded.path(item.path) for item in configuration.files.values()]
        found += self._vault_folders()
        files = [self.loaded.path(item.path) for item in configuration.databases.values() if item.path]
        found += [Path(f"{path}{ending}") for path in files for ending in ("", "-wal", "-shm", "-journal")]
        return found + self._private_folders()

    def _vault_folders(self) -> list[Path]:
        """Return the folder of the vault, if it is one of this machine."""
        folder = self.vault.capabilities.folder if self.vault is not None else None
        return [folder] if folder is not None else []

    # --- owner markers -----------------------------------------------------------------------------

    def owner_markers(self) -> list[Path]:
        configuration = self.loaded.configuration
        markers = [self.releases / f".holdfast-{OWNER_FILE}"]
        markers += [self.loaded.path(item.path) / ".holdfast" / OWNER_FILE for item in configuration.files.values()]
        return [*markers, *(folder / OWNER_FILE for folder in self._private_folders())]

    def _private_folders(self) -> list[Path]:
        """Return the private folders of the databases that have one on this machine."""
        found = [database.private_folder for database in self.databases.values()]
        return [folder for folder in found if folder is not None]

    def require_trust(self) -> None:
        """Raise RefusedError where another account could redirect Holdfast by a link or by a folder in its name."""
        for item in self.loaded.configuration.databases.values():
            if item.path:
                confined.require_trusted(self.loaded.path(item.path))
        for folder in self._own_folders():
            with contextlib.suppress(FileNotFoundError):
                os.close(confined.open_private(folder, create=False))

    def _own_folders(self) -> list[Path]:
        """Return Holdfast's folders next to or in the data, which an undo needs."""
        return [marker.parent for marker in self.owner_markers() if marker.parent.name.startswith(".holdfast")]

    @contextlib.contextmanager
    def _own_folder(self, folder: Path) -> Iterator[Path]:
        """Open such a folder, so that nobody can redirect its path. Raise RefusedError or FileNotFoundError."""
        descriptor = confined.open_private(folder, create=True)
        try:
            yield Path(confined.place_of(descriptor))
        finally:
            os.close(descriptor)

    def check_owner(self) -> None:
        """Raise OwnerMismatchError if a dataset or the release folder has another owner.

        Raise RefusedError as `require_trust` does.
        """
        self.require_trust()
        for marker in self.owner_markers():
            try:
                found = json.loads(marker.read_text())["owner"]
            except (OSError, ValueError, KeyError):
                continue
            if found != self.loaded.owner:
                raise self._mismatch(str(marker.parent), found, f"remove {marker}")
        for name, database in self.databases.items():
            owner = database.owner()
            if owner not in (None, self.loaded.owner):
                raise self._mismatch(f"database {name}", owner, "remove that marker from the database")

    def _mismatch(self, what: str, found: str | None, how: str) -> OwnerMismatchError:
        return OwnerMismatchError(
            f"{what} belongs to {found}, not to {self.loaded.owner}",
            next_step="Two state directories must never manage the same data: use the holdfast.toml of the other one,"
            f" or, if it is gone for good, {how}.",
        )

    def claim(self) -> None:
        """Write the owner's marker where it is missing. Idempotent. Raise OwnerMismatchError."""
        self.check_owner()
        for marker in self.owner_markers():
            if marker.exists() or not marker.parent.parent.is_dir():
                continue
            content = json.dumps({"owner": self.loaded.owner, "state": str(self.loaded.state)})
            if marker.parent in self._own_folders():
                with self._own_folder(marker.parent) as place:
                    durable.write_file(place / marker.name, content)
            else:
                durable.make_directory(marker.parent, 0o755)
                durable.write_file(marker, content)
        for database in self.databases.values():
            database.claim(self.loaded.owner)
        self._note_claimed()

    def claim_created(self) -> None:
        """Write the owner's marker where data came into being since the operation began. Idempotent."""
        if any(not marker.exists() and marker.parent.parent.is_dir() for marker in self.owner_markers()):
            self.claim()

    def _note_claimed(self) -> None:
        found = json.dumps([str(marker) for marker in self.owner_markers() if marker.exists()], indent=1)
        if not self._claimed.exists() or self._claimed.read_text() != found:
            durable.write_file(self._claimed, found)

    @property
    def _claimed(self) -> Path:
        return self.loaded.state / "claimed.json"

    def missing_markers(self) -> list[Path]:
        """Return the configured markers that existed at the last operation and are gone, as without a mount."""
        if not self._claimed.exists():
            return []
        known = durable.read_json(self._claimed, list[str])
        return [marker for marker in self.owner_markers() if str(marker) in known and not marker.exists()]

    def require_markers(self) -> None:
        """Raise RefusedError where data that existed at the last operation is gone, as without its mount."""
        missing = self.missing_markers()
        if missing:
            raise RefusedError(
                f"data of this application is missing: there is no {', '.join(map(str, missing))}",
                state="Nothing was changed: a change or a backup now would not have the application's data.",
                next_step="Mount the disk, then run the command again.\n"
                "If it was lost, run: holdfast backup restore latest. If the present data is right, run: holdfast"
                " backup create --adopt-data",
            )

    def shared_configuration(self) -> list[str]:
        """Return the files that all releases share and that are no data, relative to holdfast.toml.

        Such a file is configuration, which an installation wrote, and not named by `backup.config_files`.
        """
        kept = {*self.places(), *(self.loaded.path(name) for name in self.loaded.configuration.backup.config_files)}
        found = set()
        for shared in self.loaded.configuration.source.shared.values():
            path = self.loaded.path(shared)
            if path.is_file() and self.loaded.root in path.parents and kept.isdisjoint([path, *path.parents]):
                found.add(os.path.relpath(path, self.loaded.root))
        return sorted(found)

    def require_config_files(self) -> None:
        """Raise RefusedError where a file that every backup must contain does not exist."""
        configuration = self.loaded.configuration.backup
        missing = [name for name in configuration.config_files if not os.path.lexists(self.loaded.root / name)]
        if missing:
            raise RefusedError(
                f"backup.config_files names files that do not exist: {', '.join(missing)}",
                next_step="Put them back, or remove them from backup.config_files.",
            )

    def end_sessions(self, operation: str) -> None:
        """End what the commands of a dead operation still do inside engines. Raise StepError if anything continues."""
        self.runtime.end_tasks(operation)
        for cold in self.cold.values():
            cold.end_operation(operation)
        for database in self.databases.values():
            database.end_sessions(operation)

    # --- space for an undo ---------------------------------------------------------------------------

    def _reserves(self) -> list[Path]:
        return [folder / "reserve" for folder in self._own_folders()]

    def reserve(self) -> None:
        """Preallocate the space that an undo may need next to each dataset, before anything changes.

        Idempotent. Raise NoSpaceError.
        """
        for path in self._reserves():
            if not path.parent.is_dir():
                continue
            try:
                with self._own_folder(path.parent) as place:
                    try:
                        durable.preallocate(place / path.name, RESERVE_BYTES)
                    except OSError:
                        durable.unlink(place / path.name)
                        raise
            except OSError as error:
                raise NoSpaceError(
                    f"{path.parent} has no room for the {RESERVE_BYTES >> 20} MiB kept for an undo: {error.strerror}",
                    next_step="Free space there, then run the command again.",
                ) from error

    def release_reserves(self) -> None:
        """Free the reserved space for an undo; the next operation reserves it again."""
        for path in self._reserves():
            if path.parent.is_dir():
                # A folder that another account has replaced holds no reserve of ours.
                with contextlib.suppress(RefusedError), self._own_folder(path.parent) as place:
                    durable.unlink(place / path.name)
        self.journal.release_reserve()

    # --- what commands of the application see --------------------------------------------------------

    def environment(self, release: Release | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of services and tasks, with secrets as references."""
        found = dict(self.loaded.configuration.environment)
        found["HOLDFAST_ROOT"] = str(self.loaded.root)
        if release is not None:
            found["HOLDFAST_RELEASE"] = release.id
            folders = self.programs(Path(release.path))
            if folders and folders[0].parent.name == ".venv":
                found["VIRTUAL_ENV"] = str(folders[0].parent)
            if folders:
                found["PATH"] = ":".join([*map(str, folders), found.get("PATH", STANDARD_PATH)])
        return {**found, **(extra or {})}

    def programs(self, release: Path) -> list[Path]:
        """Return the folders of a release in which its package managers put programs."""
        return [release / inside for inside in _PROGRAMS if (release / inside).is_dir()]

    def resolved_environment(self, release: Release | None) -> dict[str, str]:
        """Return the same environment with resolved secrets, only for a child process."""
        return self.host.resolved(self.environment(release))
