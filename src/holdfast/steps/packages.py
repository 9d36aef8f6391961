"""The steps of packages that come from another place than a build: from a registry, or from another package."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec
from msgspec.structs import replace

from holdfast.application.context import ApplicationContext
from holdfast.drivers.packages import patch_files
from holdfast.drivers.protocols.packages import Registry
from holdfast.errors import DamagedError, DamagedPackageError, NotFoundError, RefusedError
from holdfast.model.packages import Package, Patch
from holdfast.steps.typed import Context, NoFacts, StepFacts, TypedStep


class PackageFacts(StepFacts):
    package: str | None = None
    """The package that was built, fetched or patched, which the commit keeps."""


class CarriedFacts(PackageFacts):
    contained: list[str] | None = None
    """The patches that the new release contains already."""
    carried: list[str] | None = None
    """The patches that were applied to it again."""


def registry_of(application: ApplicationContext) -> Registry:
    """Return the configured registry. Raise RefusedError without one."""
    if application.registry is None:
        raise RefusedError(
            "no registry of packages is configured",
            next_step='Add `[packages.registry]` with `url = "https://HOST/REPOSITORY"` to holdfast.toml.',
        )
    return application.registry


def require_package(application: ApplicationContext, id: str) -> Package:
    """Return a stored package. Raise NotFoundError."""
    found = application.find_package(id)
    if found is None:
        raise NotFoundError(f"the package {id} is gone", next_step="Run `holdfast package list` to see which exist.")
    return found


class PushPackage(TypedStep[NoFacts], frozen=True):
    """Push a package to the registry.

    A package appears in the registry with all of its content or not at all, and changes nothing there. So an undo only
    removes what was needed here meanwhile.
    """

    name = "package.push"
    is_undone = True

    package: str

    @property
    def title(self) -> str:
        return f"push {self.package} to the registry"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        registry = registry_of(application)
        package = require_package(application, self.package)
        configuration = application.packages.configuration_of(package) or ""
        name = application.loaded.configuration.application.name
        folder = application.packages.incoming(context.operation)
        images = application.packages.push_images(package, registry.engine_login(folder))
        application.packages.abandon(context.operation)
        stored = registry.push(package, name, configuration, images, context.progress)
        context.say(f"{stored.name} is in the registry ({stored.manifest})")

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        application.packages.abandon(context.operation)

    def describe(self, application: ApplicationContext) -> list[str]:
        return [f"push to {registry_of(application).address}:{self.package}"]


class FetchPackage(TypedStep[PackageFacts], frozen=True):
    """Pull a package from the registry, by the digest of its manifest, and compare it with what was announced."""

    name = "package.fetch"
    is_undone = True

    package: str
    manifest: str

    @property
    def title(self) -> str:
        return f"pull {self.package} from the registry"

    def do(self, application: ApplicationContext, context: Context[PackageFacts]) -> None:
        registry = registry_of(application)
        try:
            found = registry.find(f"{registry.address}@{self.manifest}")
            package = replace(found.package, id=self.package)
            known = application.find_package(self.package)
            if known is None or known.digest != package.digest or not application.packages.whole(known):
                folder = application.packages.incoming(context.operation)
                registry.pull(found, folder, context.progress)
                known = application.packages.receive(package, found.configuration, context.operation)
            login = registry.engine_login(application.packages.incoming(context.operation))
            application.packages.pull_images(known, found.images, login, context.operation)
            application.packages.abandon(context.operation)
        except DamagedError as error:
            raise DamagedPackageError(error.what, next_step=error.next_step) from error
        context.facts.package = known.id
        context.record()

    def undo(self, application: ApplicationContext, context: Context[PackageFacts]) -> None:
        """Remove what was not pulled to its end. A whole package stays: it changes nothing."""
        application.packages.abandon(context.operation)

    def describe(self, application: ApplicationContext) -> list[str]:
        return [f"pull {registry_of(application).address}@{self.manifest}"]


# --- patches -------------------------------------------------------------------------------------------


class PatchFile(msgspec.Struct, frozen=True):
    """A patch in a file of the operator's; `id` is the SHA-256 of its text."""

    path: str
    id: str
    strip: int


def _read(file: PatchFile, paths: tuple[str, ...]) -> Patch:
    """Return the text of a patch file. Raise NotFoundError, or RefusedError where it was changed since the plan."""
    text = patch_files.read(Path(file.path))
    if hashlib.sha256(text).hexdigest() != file.id:
        raise RefusedError(f"{file.path} was changed meanwhile", next_step="Run the command again.")
    return Patch(file.id, Path(file.path).name, text, file.strip, paths)


class PatchPackage(TypedStep[PackageFacts], frozen=True):
    """Make a package of another one by applying a patch, or by taking some back."""

    name = "package.patch"
    is_undone = True

    package: str
    add: PatchFile | None = None
    remove: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"apply {Path(self.add.path).name}" if self.add is not None else "take the patch back"

    def do(self, application: ApplicationContext, context: Context[PackageFacts]) -> None:
        base = require_package(application, self.package)
        add = []
        if self.add is not None:
            patch = _read(self.add, ())
            fit = application.packages.fit_patch(base, patch.name, patch.text, self.add.strip, context.operation)
            if fit.contained or fit.why_not:
                why = "the release contains it already" if fit.contained else fit.why_not
                raise RefusedError(f"patch {patch.name} does not apply: {why}")
            add.append(fit.patch)
        context.facts.package = _patched(application, base, add, self.remove, context.operation)
        context.record()

    def undo(self, application: ApplicationContext, context: Context[PackageFacts]) -> None:
        """Remove an unfinished package. A finished one stays: it is whole and changes nothing."""
        application.packages.abandon(context.operation)

    def describe(self, application: ApplicationContext) -> list[str]:
        if self.add is not None:
            return [f"git apply -p{self.add.strip} {self.add.path}"]
        return [f"git apply --reverse {id[:12]}" for id in self.remove]


def _patched(
    application: ApplicationContext, base: Package, add: list[Patch], remove: tuple[str, ...], operation: str
) -> str:
    applied_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return application.packages.patch(base, add, remove, operation, applied_at=applied_at).id


class CarryPatches(TypedStep[CarriedFacts], frozen=True):
    """Apply the patches of the running release to the package of the new one, but for those that it contains."""

    name = "package.carry"
    is_undone = True

    source: str
    """The package of the running release."""
    package: str
    """The package of the new one."""

    @property
    def title(self) -> str:
        return "apply the patches again"

    def do(self, application: ApplicationContext, context: Context[CarriedFacts]) -> None:
        source = require_package(application, self.source)
        base = require_package(application, self.package)
        context.facts.contained, context.facts.carried = [], []
        add = []
        for applied in source.patches:
            text = application.packages.patch_text(source, applied, context.operation)
            fit = application.packages.fit_patch(base, applied.name, text, applied.strip, context.operation)
            if fit.contained:
                context.facts.contained.append(applied.id)
                context.say(f"{base.id} contains the patch {applied.name} already")
            elif fit.why_not:
                raise RefusedError(
                    f"patch {applied.name} does not apply to {base.id}: {fit.why_not}",
                    next_step="Leave all patches behind with --skip-check-patches, or take this one back first: "
                    f"holdfast patch revert {applied.id[:12]} --force",
                )
            else:
                add.append(fit.patch)
                context.facts.carried.append(applied.id)
        context.facts.package = _patched(application, base, add, (), context.operation) if add else base.id
        context.record()

    def undo(self, application: ApplicationContext, context: Context[CarriedFacts]) -> None:
        """Remove an unfinished package. A finished one stays: it is whole and changes nothing."""
        application.packages.abandon(context.operation)
