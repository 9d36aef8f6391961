"""Protocols of the builds of an application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from holdfast.model.packages import (
    AppliedPatch,
    EnvironmentUse,
    Newer,
    Package,
    Patch,
    PatchFit,
    StoredImage,
    StoredPackage,
)

Progress = Callable[[int, int | None, str], None]
"""Called with what is done, the total if it is known, and the unit."""


class EngineLogin(msgspec.Struct, frozen=True):
    """How a container engine reaches a registry: an address, a folder with its `config.json` if it needs a login.

    `plain`: without TLS.
    """

    address: str
    folder: Path | None
    plain: bool


class References(Protocol):
    """The repository from which packages are built."""

    def resolve(self, reference: str) -> tuple[str, str]:
        """Return the full commit and the label of a tag, branch or (short) commit. Raise NotFoundError."""

    def file_of(self, commit: str, name: str) -> str | None:
        """Return the text of a file at a commit; None if the commit has no such file."""

    def fetch(self) -> None:
        """Fetch new commits and tags from the repository's remote. Idempotent. Raise StepError."""

    def precedes(self, commit: str, later: str) -> bool:
        """Return whether a commit is an ancestor of another one; False where one of them is unknown here."""

    def newer(self, commit: str) -> Newer:
        """Return what is newer than a commit, as far as it is known here.

        Raise NotFoundError where the commit is unknown.
        """


class Packages(References, Protocol):
    """A store of immutable builds."""

    def recipe(self, *, assets: bool) -> str:
        """Return the recipe of a build by the present configuration."""

    def named(self, commit: str, label: str, *, assets: bool = True) -> str:
        """Return the id that a build gets if it is given none: that of an equal build, or a new one."""

    def build(self, commit: str, label: str, run: str, *, id: str = "", note: str = "", assets: bool = True) -> Package:
        """Build and store a package, or return an existing one with the same recipe. Idempotent.

        `assets`: run the commands that build assets, too.
        """

    def abandon(self, run: str) -> None:
        """Remove an unfinished build. Idempotent."""

    def packages(self) -> list[Package]: ...

    def unpack(self, package: Package, target: Path, marker: Mapping[str, Any]) -> None:
        """Make a new release folder: the tree, its dependencies, and last the marker, which makes the folder valid."""

    def adopt(self, archive: Path) -> Package:
        """Copy an archive from a backup into the store. Idempotent. Raise DamagedError."""

    def remove(self, *ids: str) -> None:
        """Remove packages, and whatever removals that were killed have left. Idempotent."""

    def configuration_of(self, package: Package) -> str | None:
        """Return the release's own files as `config.own_files` puts them together; None where none are known."""

    def whole(self, package: Package) -> bool:
        """Read every byte of a package; return whether it is the one that was stored."""

    # --- packages of other machines -----------------------------------------------------------------

    def incoming(self, run: str) -> Path:
        """Return an empty folder for what arrives from a registry. `abandon` removes it."""

    def receive(self, package: Package, configuration: str, run: str) -> Package:
        """Store the package whose archive is in the folder of `incoming`. Raise DamagedError."""

    def push_images(self, package: Package, login: EngineLogin) -> Mapping[str, StoredImage]:
        """Push the images of a package, if it has some. Idempotent. Raise CommandFailedError."""

    def pull_images(self, package: Package, images: Mapping[str, StoredImage], login: EngineLogin, run: str) -> None:
        """Pull the images of a package that was received, or build them from its sources. Idempotent."""

    # --- patches ------------------------------------------------------------------------------------

    def fit_patch(self, package: Package, name: str, text: bytes, strip: int | None, run: str) -> PatchFit:
        """Return how a patch fits to a package; nothing is kept. Raise RefusedError for what is not a patch."""

    def why_not_reverted(self, package: Package, patch: AppliedPatch, run: str) -> str:
        """Return why a patch of a package cannot be taken back; empty if it can. Nothing is kept."""

    def patch_text(self, package: Package, patch: AppliedPatch, run: str) -> bytes:
        """Return the text of a patch that was applied to a package. Raise DamagedError."""

    def patch(
        self, package: Package, add: Sequence[Patch], remove: Sequence[str], run: str, *, applied_at: str
    ) -> Package:
        """Make a package of another one, without some of its patches and with others. Idempotent.

        Raise RefusedError where one does not apply; nothing is kept then.
        """


class Registry(Protocol):
    """A store of packages that all environments of a project share."""

    @property
    def address(self) -> str:
        """Return its host and repository, with which the names of its packages begin."""

    def engine_login(self, folder: Path) -> EngineLogin:
        """Return how a container engine reaches it. A login is written into the folder, for its owner alone."""

    def close(self) -> None:
        """Close its connection, if there is one. It is opened again when it is needed."""

    def require_access(self) -> None:
        """Raise RegistryError where it does not answer or refuses this user."""

    def packages(self) -> list[StoredPackage]:
        """Return its packages, newest first. Raise RegistryError."""

    def find(self, reference: str) -> StoredPackage:
        """Return the package of a tag, a name, or a name with `@` and a digest.

        Raise NotFoundError with similar names, RegistryError or DamagedError.
        """

    def push(
        self,
        package: Package,
        application: str,
        configuration: str,
        images: Mapping[str, StoredImage],
        progress: Progress,
    ) -> StoredPackage:
        """Store a package under its id. Idempotent; it is listed once all of it is there.

        Raise RefusedError where another package has the name, or RegistryError.
        """

    def pull(self, stored: StoredPackage, folder: Path, progress: Progress) -> None:
        """Write the archive of a package into a folder. Raise DamagedError for other content, and RegistryError."""

    def verify(self, stored: StoredPackage, progress: Progress) -> None:
        """Read every byte of a package. Raise DamagedError for other content, and RegistryError."""

    def remove(self, stored: StoredPackage) -> None:
        """Remove a package. Idempotent. Raise RegistryError."""

    def uses(self) -> list[EnvironmentUse]:
        """Return what each environment has recorded. Raise RegistryError."""

    def record(self, use: EnvironmentUse) -> None:
        """Replace what an environment has recorded. Idempotent. Raise RegistryError."""
