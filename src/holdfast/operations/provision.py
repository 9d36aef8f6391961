"""Where the package of a new release comes from: a build here, the package folder, or the registry."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial

from holdfast.application.application import App
from holdfast.config import own_files
from holdfast.config.load import wanted_files
from holdfast.config.similar import no_such
from holdfast.errors import AlreadyThereError, NotFoundError, RefusedError, RegistryError
from holdfast.model import PlannedStep
from holdfast.model.packages import RESERVED_NAMES, Package, StoredPackage
from holdfast.steps.package_use import RecordUse
from holdfast.steps.packages import FetchPackage, PushPackage, registry_of
from holdfast.steps.release import BuildPackage

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_LETTERS = 100
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Provision:
    """A package, the steps that bring it here, and the text of its own holdfast.toml."""

    commit: str
    label: str
    package: str
    steps: tuple[PlannedStep, ...]
    configuration: str | None
    here: Package | None = None
    """The package, if it is in the package folder now."""


def pushes(app: App, push: bool | None) -> bool:
    """Return whether a build is pushed: as asked for, or as configured. Raise RefusedError without a registry."""
    if push:
        registry_of(app.context)
    registry = app.loaded.configuration.packages.registry
    return registry is not None and (registry.push if push is None else push)


def building(app: App, reference: str, *, push: bool | None = None) -> Provision:
    """Return how the package of a git reference is made for an upgrade; an equal one in the registry is pulled.

    Raise NotFoundError, RefusedError or RegistryError.
    """
    try:
        commit, label = app.context.packages.resolve(reference)
    except NotFoundError:
        if app.context.find_package(reference) is None:
            raise
        return deploying(app, reference)
    id = app.context.packages.named(commit, label)
    configuration = own_files.from_each(partial(app.context.packages.file_of, commit), wanted_files(app.loaded))
    note = default_note(reference)
    here = _exactly(app, id)
    if push and TAG.fullmatch(id) is None:
        raise RefusedError(
            f"a package of the name {id} cannot be pushed: a registry accepts letters, digits, `.`, `_` and `-`",
            next_step=f"Build it under another name, then deploy that: holdfast package build {reference} TAG --push",
        )
    if not pushes(app, push) or TAG.fullmatch(id) is None:
        return Provision(commit, label, id, (BuildPackage(commit, label, id, note),), configuration, here)
    try:
        id, stored = _free_name(app, id, commit, app.context.packages.recipe(assets=True))
    except RegistryError as error:
        error.next_step += "\nTo go on without the registry, add --no-push."
        raise
    if stored is not None:
        return _provided(app, stored, here)
    steps = (BuildPackage(commit, label, id, note), PushPackage(id), RecordUse((id,)))
    return Provision(commit, label, id, steps, configuration, here)


def _free_name(app: App, id: str, commit: str, recipe: str) -> tuple[str, StoredPackage | None]:
    """Return a name that the registry has for an equal build, with that package, or one that it does not have."""
    name, number = id, 1
    while True:
        try:
            stored = registry_of(app.context).find(name)
        except NotFoundError:
            return name, None
        if (stored.package.commit, stored.package.recipe) == (commit, recipe):
            return name, stored
        number += 1
        name = f"{id}-{number}"


def deploying(app: App, reference: str) -> Provision:
    """Return how a package that was built before comes here. Raise NotFoundError, RefusedError or RegistryError."""
    registry = app.context.registry
    named = registry is not None and reference.startswith((f"{registry.address}:", f"{registry.address}@"))
    here = None if named else app.context.find_package(reference) or _of_reference(app, reference)
    if here is None and registry is not None:
        stored = registry.find(reference)
        return _provided(app, stored, _exactly(app, stored.package.id))
    if here is None:
        raise unknown(app, reference)
    return Provision(
        here.commit, here.label, here.id, (RecordUse((here.id,)),) if registry else (), _configuration(app, here), here
    )


def _of_reference(app: App, reference: str) -> Package | None:
    """Return the package here of the git commit that a reference means; None if there is none."""
    try:
        commit, _ = app.context.packages.resolve(reference)
    except NotFoundError:
        return None
    return app.context.find_package(commit)


def unknown(app: App, reference: str) -> NotFoundError:
    """Return the error for a package that does not exist, with similar names."""
    from_git = ""
    try:
        app.context.packages.resolve(reference)
        from_git = f"\nIt is a git reference. To build its package and deploy it, run: holdfast upgrade {reference}"
    except NotFoundError:
        pass
    error = no_such("package", reference, [one.id for one in app.context.packages.packages()])
    error.next_step = f"{error.next_step} Run `holdfast package list` to see all packages.{from_git}".strip()
    return error


def _exactly(app: App, id: str) -> Package | None:
    return next((one for one in app.context.packages.packages() if one.id == id), None)


def _configuration(app: App, package: Package) -> str | None:
    return app.context.packages.configuration_of(package)


def _provided(app: App, stored: StoredPackage, here: Package | None) -> Provision:
    """Return how a package of the registry comes here. Raise RefusedError for one that does not belong here."""
    name = app.loaded.configuration.application.name
    if stored.application != name:
        raise RefusedError(
            f"{stored.name} is a package of the application {stored.application!r}, not of {name!r}",
            next_step="Correct `packages.registry.url`, or name another package.",
        )
    package = stored.package
    if here is not None and here.digest != package.digest:
        raise RefusedError(
            f"the package {package.id} in the registry is not the one of that name here: its digest is"
            f" {package.digest[:12]}, not {here.digest[:12]}",
            next_step="Build the package under another name and push that: holdfast package build REF TAG --push",
        )
    return Provision(
        package.commit,
        package.label,
        package.id,
        (FetchPackage(package.id, stored.manifest), RecordUse((package.id,))),
        stored.configuration,
        here,
    )


# --- the names of new packages ---------------------------------------------------------------------------


def default_note(reference: str) -> str:
    return f"Reference: {reference}"


def default_tag(app: App, reference: str, commit: str, *, push: bool | None, assets: bool = True) -> str:
    """Return a name that no other package has: REF-YYYYMMDD, or with -N.

    Raise AlreadyThereError where an equal package was built before, or RegistryError.
    """
    stamp = time.strftime("%Y%m%d", time.gmtime())
    begin = _UNFIT.sub("-", reference).strip("-.")[:_MOST_LETTERS] or commit[:12]
    recipe = app.context.packages.recipe(assets=assets)
    taken = {one.id: (one.commit, one.recipe) for one in app.context.packages.packages()}
    in_registry: dict[str, tuple[str, str]] = {}
    if pushes(app, push):
        stored = registry_of(app.context).packages()
        in_registry = {one.package.id: (one.package.commit, one.package.recipe) for one in stored}
    wanted = (commit, recipe)
    for id, found in in_registry.items():
        if found == wanted:
            raise AlreadyThereError(
                f"the package of {reference} ({commit[:12]}) is in the registry already: "
                f"{registry_of(app.context).address}:{id}",
                next_step=f"To deploy it, run: holdfast package deploy {id}",
            )
    here = next((one for one in reversed(list(taken)) if taken[one] == wanted and one not in in_registry), None)
    if here is not None and TAG.fullmatch(here):
        return here
    tag, number = f"{begin}-{stamp}", 1
    while tag in taken or tag in in_registry:
        number += 1
        tag = f"{begin}-{stamp}-{number}"
    return tag


def require_free(app: App, tag: str, commit: str, *, assets: bool) -> None:
    """Raise RefusedError for a name that no package may have, or that another package has."""
    if TAG.fullmatch(tag) is None or tag in RESERVED_NAMES:
        raise RefusedError(
            f"{tag!r} is not a valid name of a package",
            next_step="Use at most 128 letters, digits, `.`, `_` and `-`, a letter or digit first.",
        )
    other = _exactly(app, tag)
    if other is not None and (other.commit, other.recipe) != (commit, app.context.packages.recipe(assets=assets)):
        raise RefusedError(
            f"the package {tag} exists already, of git commit {other.commit[:12]}",
            next_step="A name never moves to another package. Choose a new one.",
        )
