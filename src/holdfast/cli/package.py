"""`holdfast package build | list | show | verify | deploy | prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_bytes, local_minute, local_time, local_zone

if TYPE_CHECKING:
    from holdfast.application.application import App
    from holdfast.model.packages import EnvironmentUse, Package, StoredPackage

_PER_PAGE = 25


@group()
def package() -> None:
    """Build, list, show, verify, deploy and prune packages."""


@package.command(
    examples=[
        ("package build v2", "Build now, deploy later."),
        ("package build v2 v2-20261201 --label 'For the sale'", "With a name and a label of your own."),
        ("package build --push", "Asks for the reference and the name on a terminal; pushes to the registry."),
    ]
)
@click.argument("reference", metavar="[REF]", required=False)
@click.argument("tag", metavar="[TAG]", required=False)
@click.option("--label", "note", metavar="TEXT", help="What `package list` says of it. Default: `Reference: REF`.")
@click.option("--skip-assets-build", is_flag=True, help="Do not run `source.assets`: the assets are in the repository.")
@click.option(
    "--push/--no-push",
    default=None,
    help="Push it to the registry, or do not. Default: as `packages.registry.push` says.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def build(
    session: Session,
    reference: str | None,
    tag: str | None,
    note: str | None,
    skip_assets_build: bool,
    push: bool | None,
    dry_run: bool,
) -> None:
    """Build the package of a tag, branch or commit; deploy nothing.

    The name TAG never moves to another package. Without it, the name is REF-YYYYMMDD, with -2, -3 and so on if that is
    taken; an equal package that exists already is returned.
    """
    from holdfast.errors import AlreadyThereError, UsageError
    from holdfast.operations import package as operation
    from holdfast.operations import provision

    app = session.changing_app()
    asks = session.can_ask and not session.yes
    if reference is None:
        if not asks:
            raise UsageError("REF is missing", next_step="Name a tag, branch or commit: holdfast package build REF")
        reference = str(click.prompt("Tag, branch or commit", err=True))
    assets = not skip_assets_build
    try:
        if tag is None and asks:
            commit, _ = app.context.packages.resolve(reference)
            found = provision.default_tag(app, reference, commit, push=push, assets=assets)
            tag = str(click.prompt("Name of the package", default=found, err=True))
        if note is None and asks:
            note = str(click.prompt("Label", default=provision.default_note(reference), err=True))
        plan = operation.plan(app, reference, tag or "", note=note, assets=assets, push=push)
    except AlreadyThereError as error:
        session.renderer.line(str(error))
        session.renderer.result({"changed": False, "reason": error.what})
        return
    session.run(app, plan, dry_run=dry_run)


@package.command(
    "list", examples=[("package list", "What is built?"), ("package list --page 2 --limit 10", "Further.")]
)
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="Which page to print.")
@click.option(
    "--limit", type=click.IntRange(1), default=_PER_PAGE, show_default=True, help="How many packages a page has."
)
@click.option("--local", is_flag=True, help="Only what is in the package folder here; the registry is not asked.")
@common
def list_(session: Session, page: int, limit: int, local: bool) -> None:
    """List packages, newest first: when each was pushed, or built here."""
    app = session.app()
    entries = _entries(app, local=local)
    shown = entries[(page - 1) * limit : page * limit]
    session.renderer.table(
        [f"PUSHED ({local_zone()})", "PACKAGE", "LABEL", "COMMIT", Column("SIZE", right=True), ""],
        [
            [
                local_minute(str(entry["pushed_at"] or entry["built_at"])),
                str(entry["name"]),
                str(entry["note"]),
                str(entry["commit"])[:12],
                human_bytes(int(str(entry["size_bytes"]))),
                _where(entry),
            ]
            for entry in shown
        ],
        empty="There is no package yet. To build one, run: holdfast package build REF"
        if not entries
        else f"There is no page {page}.",
    )
    pages = max(1, -(-len(entries) // limit))
    if pages > 1:
        session.renderer.line(f"{len(entries)} packages, page {page} of {pages}, {limit} per page")
    session.renderer.result({"packages": shown, "total": len(entries), "page": page, "pages": pages, "limit": limit})


def _where(entry: dict[str, object]) -> str:
    if entry["in_registry"] is None or entry["in_registry"]:
        return ""
    return "only here"


def _entries(app: App, *, local: bool = False) -> list[dict[str, object]]:
    """Return all packages as the list and its JSON have them, newest first."""
    registry = None if local else app.context.registry
    here = {one.id: one for one in app.context.packages.packages()}
    stored = registry.packages() if registry is not None else []
    found = [_entry(one.package, one, one.package.id in here) for one in stored]
    pushed = {one.package.id for one in stored}
    found += [
        _entry(one, None, True) | ({"in_registry": False} if registry is not None else {})
        for one in here.values()
        if one.id not in pushed
    ]
    return sorted(
        found, key=lambda entry: (str(entry["pushed_at"] or entry["built_at"]), str(entry["id"])), reverse=True
    )


def _entry(package: Package, stored: StoredPackage | None, here: bool) -> dict[str, object]:
    value: dict[str, Any] = msgspec.to_builtins(package)
    return {
        **{key: value[key] for key in value if key not in ("format", "recipe")},
        "name": stored.name if stored is not None else package.id,
        "pushed_at": stored.pushed_at if stored is not None else "",
        "manifest": stored.manifest if stored is not None else "",
        "in_registry": True if stored is not None else None,
        "here": here,
    }


@package.command(examples=[("package show v2-20261201", "Of which commit is it, and who runs it?")])
@click.argument("reference", metavar="PACKAGE")
@common
def show(session: Session, reference: str) -> None:
    """Show one package: commit, digests, label, patches, and which environments need it."""
    app = session.app()
    here, stored = _found(app, reference)
    package = here or (stored.package if stored is not None else None)
    assert package is not None
    uses = [use for use in _uses(app) if package.id in use.packages]
    lines = [
        ("package", stored.name if stored is not None else package.id),
        ("label", package.note),
        ("reference", package.label),
        ("commit", package.commit),
        ("content", f"sha256:{package.content}" if package.content else ""),
        ("archive", f"sha256:{package.digest} ({human_bytes(package.size_bytes)})"),
        ("manifest", stored.manifest if stored is not None else ""),
        ("built", local_time(package.built_at)),
        ("pushed", local_time(stored.pushed_at) if stored is not None else ""),
        ("here", package.path if here is not None else ""),
        ("patches", ", ".join(one.name for one in package.patches)),
        ("used by", ", ".join(_used_by(use, package.id) for use in uses)),
    ]
    for heading, text in lines:
        if text:
            session.renderer.line(f"{heading:<10} {text}")
    value = _entry(package, stored, here is not None)
    session.renderer.result({"package": {**value, "used_by": [msgspec.to_builtins(use) for use in uses]}})


def _used_by(use: EnvironmentUse, id: str) -> str:
    return f"{use.environment} ({'runs it' if use.current == id else 'may go back to it'})"


def _uses(app: App) -> list[EnvironmentUse]:
    """Return what the environments need: as the registry has it, and this one as it is now."""
    from holdfast.steps.package_use import use_of

    own = use_of(app.context)
    others = app.context.registry.uses() if app.context.registry is not None else []
    return [own, *(use for use in others if use.key != own.key)]


def _found(app: App, reference: str) -> tuple[Package | None, StoredPackage | None]:
    """Return a package as it is here and as it is in the registry; at least one of them. Raise NotFoundError."""
    from holdfast.errors import NotFoundError
    from holdfast.operations import provision

    registry = app.context.registry
    bare = reference.removeprefix(f"{registry.address}:") if registry is not None else reference
    here = app.context.find_package(bare)
    stored = None
    if registry is not None:
        try:
            stored = registry.find(here.id if here is not None and not here.patches else bare)
        except NotFoundError:
            if here is None:
                raise
    if here is None and stored is None:
        raise provision.unknown(app, reference)
    return here, stored


@package.command(examples=[("package verify", "Is everything as it was built?")])
@click.argument("references", metavar="[PACKAGE]...", nargs=-1)
@click.option("--local", is_flag=True, help="Only what is in the package folder here; the registry is not asked.")
@common
def verify(session: Session, references: tuple[str, ...], local: bool) -> None:
    """Read every byte of packages, here and in the registry, and compare it with its digest."""
    from holdfast.errors import DamagedError

    app = session.app()
    registry = None if local else app.context.registry
    if references:
        pairs = [_found(app, one) for one in references]
        here = [one for one, _ in pairs if one is not None]
        stored = [one for _, one in pairs if one is not None] if registry is not None else []
    else:
        here = app.context.packages.packages()
        stored = registry.packages() if registry is not None else []
    damaged = [f"{one.id} (here)" for one in here if not app.context.packages.whole(one)]
    for each in stored:
        try:
            assert registry is not None
            registry.verify(registry.find(each.package.id), lambda done, total, unit: None)
        except DamagedError as error:
            session.renderer.aside(error.what)
            damaged.append(each.name)
    if damaged:
        raise DamagedError(
            f"damaged packages: {', '.join(damaged)}",
            next_step="Build them again under a new name, and remove the damaged ones with `holdfast package prune`.",
        )
    count = len({one.id for one in here} | {one.package.id for one in stored})
    session.renderer.line(f"{count} packages verified: undamaged")
    session.renderer.result({"verified": count, "damaged": []})


@package.command(
    examples=[
        ("package deploy v2-20261201", "Deploy what was built here or on another machine."),
        ("package deploy v2-20261201 --rolling", "Without the maintenance page."),
    ]
)
@click.argument("reference", metavar="PACKAGE")
@click.option("--rolling", "mode", flag_value="rolling", help="As `upgrade --rolling`.")
@click.option("--source", "mode", flag_value="source", help="As `upgrade --source`.")
@click.option("--no-backup", is_flag=True, help="Make no backup; --dry-run prints what an undo then loses.")
@click.option("--again", is_flag=True, help="Deploy even the package that is running.")
@click.option("--skip-check-patches", is_flag=True, help="Leave the patches of the running release behind.")
@click.option("--reapply-patches", is_flag=True, help="Apply patches again that the package does not contain.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def deploy(
    session: Session,
    reference: str,
    mode: Literal["rolling", "source"] | None,
    no_backup: bool,
    again: bool,
    skip_check_patches: bool,
    reapply_patches: bool,
    dry_run: bool,
) -> None:
    """Deploy a package: an upgrade in maintenance mode unless said otherwise, or the first installation."""
    from holdfast.cli.patch import what_becomes_of_patches
    from holdfast.errors import AlreadyThereError
    from holdfast.operations import install, provision, upgrade

    app = session.changing_app()
    provided = provision.deploying(app, reference)
    if app.context.current_release() is None:
        plan = install.plan(app, reference, provided=provided)
    else:
        patches = what_becomes_of_patches(session, app, provided, skip=skip_check_patches, reapply=reapply_patches)
        try:
            plan = upgrade.plan(
                app,
                reference,
                mode=mode or "maintenance",
                backup=not no_backup,
                again=again,
                provided=provided,
                patches=patches,
            )
        except AlreadyThereError as error:
            error.next_step = f"To deploy it again, run: holdfast package deploy {reference} --again"
            session.renderer.line(str(error))
            session.renderer.result({"changed": False, "reason": error.what})
            return
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)


@package.command(
    examples=[
        ("package prune --dry-run", "What would be removed?"),
        ("package prune --keep 10", "Keep the newest ten of the registry, besides those in use."),
    ]
)
@click.option("--keep", type=click.IntRange(0), metavar="N", help="How many of the newest stay in the registry.")
@click.option("--local", is_flag=True, help="Only in the package folder here; the registry is not asked.")
@click.option("--dry-run", is_flag=True, help="Print which would be removed.")
@common
def prune(session: Session, keep: int | None, local: bool, dry_run: bool) -> None:
    """Remove packages that nobody needs, here and in the registry.

    Here, those of which no release is kept. In the registry, those that no environment runs or may go back to, but for
    the newest (`releases.keep`, or --keep).
    """
    from holdfast.operations import package as operation

    app = session.changing_app()
    unused = operation.unused(app)
    registry = None if local else app.context.registry
    stored: list[StoredPackage] = []
    if registry is not None:
        needed = [id for use in _uses(app) for id in use.packages]
        number = app.loaded.configuration.releases.keep if keep is None else keep
        stored = operation.unused_stored(registry.packages(), registry.uses(), needed, number)
    names = [*unused, *(one.name for one in stored)]
    if names and not dry_run:
        session.confirm(f"Remove {len(names)} packages?", tuple(names))
        with app.runner.lock("change").acquire("package prune"):
            app.context.packages.remove(*unused)
            for one in stored:
                assert registry is not None
                registry.remove(one)
    session.renderer.line("\n".join(names) or "no package is unused")
    session.renderer.result(
        {
            "removed": [] if dry_run else unused,
            "unused": unused,
            "removed_from_registry": [] if dry_run else [one.name for one in stored],
            "unused_in_registry": [one.name for one in stored],
        }
    )
