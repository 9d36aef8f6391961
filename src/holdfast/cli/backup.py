"""`holdfast backup create | list | show | verify | restore | export | prune | pin`, and those of `backup_files`."""

from __future__ import annotations

import time

import click
import msgspec

from holdfast.cli import backup_export, backup_files, sanitized_backups
from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import ago, counted, human_bytes, local_time, paged
from holdfast.errors import DamagedError, OperationFailedError, UsageError


@group()
def backup() -> None:
    """Create, list, compare, verify, restore, export, prune and pin backups, and find files in them."""


@backup.command(
    examples=[
        ("backup create", "Databases, files, code and configuration."),
        ("backup create --only media --consistency live", "Only the files, without holding writers."),
    ]
)
@click.option(
    "--consistency",
    type=click.Choice(["live", "pause", "quiesce"]),
    help="How writers are held; default: as configured.",
)
@click.option("--quiesce", is_flag=True, help="The same as --consistency quiesce: stop all services meanwhile.")
@click.option(
    "--only", multiple=True, metavar="DATASET", help="Only this dataset, @databases or @files (may be repeated)."
)
@click.option("--except", "except_", multiple=True, metavar="DATASET", help="Without this dataset (may be repeated).")
@click.option("--adopt-data", is_flag=True, help="Accept data without Holdfast's marker as the application's data.")
@click.option("--comment", default="", help="Reason for the backup; `backup show` prints it.")
@click.option("--sanitized", is_flag=True, help="Databases alone, without personal data, as plain dumps.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def create(
    session: Session,
    consistency: str | None,
    quiesce: bool,
    only: tuple[str, ...],
    except_: tuple[str, ...],
    adopt_data: bool,
    comment: str,
    sanitized: bool,
    dry_run: bool,
) -> None:
    """Make a backup: databases, files, code and configuration at one instant.

    With --sanitized, the databases alone, with every value replaced that the rules name, as dumps that load without
    Holdfast; `holdfast sanitize init` writes a first draft of the rules.
    """
    from holdfast.operations import backup as operation

    if sanitized:
        if quiesce or consistency or only or except_ or adopt_data:
            raise UsageError("--sanitized takes no other option than --comment and --dry-run")
        sanitized_backups.create(session, comment, dry_run=dry_run)
        return
    if quiesce and consistency not in (None, "quiesce"):
        raise UsageError(f"--quiesce and --consistency {consistency} contradict each other")
    consistency = "quiesce" if quiesce else consistency
    app = session.changing_app()
    session.run(
        app,
        operation.plan(
            app, consistency=consistency, only=only, except_=except_, comment=comment, adopt_data=adopt_data
        ),
        dry_run=dry_run,
    )


LISTED = (
    "BACKUP",
    "AGE",
    Column("REASON", wraps=True),
    Column("LEVEL", optional=True),
    Column("RELEASE", optional=True),
    Column("SIZE", right=True),
    Column("NEW", right=True, optional=True),
    Column("DATASETS", wraps=True),
    Column("", wraps=True),
)


@backup.command(
    "list",
    examples=[
        ("backup list", "Which backups are there, how old, and why?"),
        ("backup list --per-page 25", "The newest 25; --page 2 shows those before them."),
    ],
)
@click.option("--page", type=click.IntRange(min=1), default=1, show_default=True, help="Which page; 1 has the newest.")
@click.option("--per-page", metavar="NUMBER", type=click.IntRange(min=1), help="How many on a page; default: all.")
@click.option("--sanitized", is_flag=True, help="The sanitized ones, with the path and the command that loads each.")
@common
def list_(session: Session, page: int, per_page: int | None, sanitized: bool) -> None:
    """List backups, oldest first."""
    from holdfast.operations import backup as operation

    if sanitized:
        sanitized_backups.show_all(session)
        return
    app = session.app()
    vault = operation.vault(app)
    every = vault.backups()
    found, pages = paged(every, page, per_page)
    session.renderer.table(
        LISTED,
        [
            [
                item.id,
                ago(item.instant),
                item.reason or "-",
                item.consistency,
                item.release.get("label", "-"),
                human_bytes(item.size_bytes),
                human_bytes(item.new_bytes),
                ", ".join(item.datasets),
                ", ".join([*(["safety"] if item.safety else []), *(["pinned"] if item.pinned else [])]),
            ]
            for item in found
        ],
        empty="There is no backup yet. To make one, run: holdfast backup create",
    )
    if per_page is not None:
        session.renderer.aside(f"page {page} of {pages}: {len(found)} of {counted(len(every), 'backup')}")
    damaged = vault.damaged()
    for name in damaged:
        session.renderer.aside(f"{name} is damaged and not listed; to see the damage, run: holdfast backup verify")
    session.renderer.result(
        {
            "backups": [msgspec.to_builtins(item) for item in found],
            "damaged": damaged,
            "total": len(every),
            "page": page,
            "pages": pages,
        }
    )


@backup.command(examples=[("backup show latest", "The newest whole backup.")])
@click.argument("reference", metavar="ID")
@common
def show(session: Session, reference: str) -> None:
    """Show one backup: an id, a unique prefix, or `latest`."""
    from holdfast.operations import backup as operation

    app = session.app()
    found = operation.find(app, reference)
    lines = {
        "backup": found.id,
        "taken": f"{local_time(found.instant)} ({ago(found.instant)})",
        "consistency": found.consistency,
        "reason": found.reason or "-",
        "release": found.release.get("id", "-"),
        "commit": found.release.get("commit", "-"),
        "size": human_bytes(found.size_bytes),
        "new in the vault": human_bytes(found.new_bytes),
        "instants apart": f"{found.instants_apart_seconds:.3f} s" if found.instants_apart_seconds else "-",
        "writers held": f"{found.writer_held_seconds:.3f} s" if found.writer_held_seconds else "-",
        "secrets inside": "yes" if found.secrets_inside else "no",
        "pinned": "yes" if found.pinned else "no",
        "made by": f"Holdfast {found.holdfast_version}, {found.operation}",
    }
    for key, value in lines.items():
        session.renderer.line(f"{key:17} {value}")
    for name, facts in found.datasets.items():
        detail = (
            f"{facts['files']} entries"
            if facts["kind"] == "files"
            else f"{sum(n or 0 for n in facts['rows'].values())} rows, {facts['tool']}"
        )
        session.renderer.line(f"  {name:15} {facts['kind']}, {human_bytes(facts['size_bytes'])}, {detail}")
    session.renderer.result(msgspec.to_builtins(found))


@backup.command(
    examples=[
        ("backup verify", "Read the whole vault."),
        ("backup verify latest --load", "Also load its databases, compare and drop them."),
    ]
)
@click.argument("reference", metavar="[ID]", required=False)
@click.option(
    "--load",
    is_flag=True,
    help="Also load its databases (default: of `latest`) as candidate databases, compare and drop them.",
)
@common
def verify(session: Session, reference: str | None, load: bool) -> None:
    """Read every byte of one backup, or of the whole vault, against its digest."""
    from holdfast.application.whole_backups import whole
    from holdfast.cli.progress import ProgressObserver
    from holdfast.engine.cancellation import Cancellation
    from holdfast.operations import backup as operation

    app = session.app()
    vault = operation.vault(app)
    chosen = operation.find(app, reference).id if reference and reference not in vault.damaged() else reference
    observer = ProgressObserver(session.renderer)
    with Cancellation() as cancellation:
        started = time.monotonic()
        observer.step_started("verify", 1, 1, undo=False)
        problems = vault.verify(chosen, observer.progress, cancellation.check)
        observer.step_ended("verify", time.monotonic() - started, undo=False, failed=bool(problems))
    if problems:
        for problem in problems[:50]:
            session.renderer.aside(f"  {problem}")
        raise DamagedError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found: {problems[0]}",
            state="Nothing was changed.",
            next_step="Make a new backup now, and check the disk of the vault. A restore refuses damaged data.",
        )
    verified = [item for item in vault.backups() if chosen in (None, item.id)]
    count, partial = len(verified), len(verified) - len(whole(app.loaded, verified))
    rest = f" ({partial} of them partial)" if partial and count > 1 else " (partial)" if partial else ""
    session.renderer.line(f"{count} backup{'s' if count != 1 else ''} verified: undamaged{rest}")
    if load:
        try:
            session.run(app, operation.plan_proof(app, reference or "latest"))
        except OperationFailedError as error:
            raise DamagedError(error.what, state="Nothing was changed.", next_step=error.next_step) from error
        return
    session.renderer.result({"verified": count, "problems": []})


@backup.command(
    examples=[
        ("backup restore latest --dry-run", "What would happen?"),
        ("backup restore latest --only media", "Only the files."),
        ("backup restore latest --into look", "Load a database under another name, to inspect it."),
    ]
)
@click.argument("references", metavar="ID [ID...]", nargs=-1, required=True)
@click.option(
    "--only",
    multiple=True,
    metavar="DATASET",
    help="Only this dataset, @databases, @files, `code` or `config` (may be repeated).",
)
@click.option("--except", "except_", multiple=True, metavar="DATASET", help="Without this dataset (may be repeated).")
@click.option("--into", metavar="NAME", help="Only load one database under this name, to inspect it.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="PATH",
    help="Only this file or folder, as `media/2026` (may be repeated).",
)
@click.option("--to", "folder", metavar="FOLDER", help="Write the files of --path into a new or empty folder.")
@click.option(
    "--no-safety", is_flag=True, help="Make no safety backup; keep the replaced data for `upgrade.keep_replaced`."
)
@click.option("--sanitized", is_flag=True, help="Load a sanitized backup, outside of production.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def restore(
    session: Session,
    references: tuple[str, ...],
    only: tuple[str, ...],
    except_: tuple[str, ...],
    into: str | None,
    paths: tuple[str, ...],
    folder: str | None,
    no_safety: bool,
    sanitized: bool,
    dry_run: bool,
) -> None:
    """Bring the application back to a backup: code, databases and files, or some of them.

    With several backups, each dataset comes from the first one that has it, so one of databases and one of files can be
    combined.

    With --path, only single files and folders come back, while the services keep running; other files stay. With --to,
    they are written into a folder instead: the application is not touched, and need not be installed.
    """
    from holdfast.operations import restore as operation

    if sanitized:
        if len(references) > 1 or except_ or into or paths or folder or len(only) > 1:
            raise UsageError("--sanitized takes one backup, and no other option than --only, --no-safety and --dry-run")
        sanitized_backups.restore(session, references[0], next(iter(only), None), safety=not no_safety, dry_run=dry_run)
        return
    if paths:
        if len(references) > 1 or only or except_ or no_safety or into is not None:
            raise UsageError("--path takes one backup, and no other option than --to and --dry-run")
        backup_files.restore_paths(session, references[0], paths, folder, dry_run=dry_run)
        return
    if folder is not None:
        raise UsageError("--to needs --path", next_step="Name a dataset to get all of its files: --path DATASET")
    if into is not None:
        if len(references) > 1 or except_ or no_safety:
            raise UsageError("--into takes one backup, and no other option than --only")
        app = session.changing_app()
        session.run(app, operation.plan_into(app, references[0], into, only=only), dry_run=dry_run)
        return
    app = session.app()
    plan = operation.plan(app, *references, only=only, except_=except_, safety=not no_safety)
    if not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)


@backup.command(
    examples=[
        ("backup prune --dry-run", "What would be removed, and why do the others stay?"),
        ("backup prune --yes", "In a cron job."),
    ]
)
@click.option("--dry-run", is_flag=True, help="Print which would be removed and why the others stay.")
@common
def prune(session: Session, dry_run: bool) -> None:
    """Remove backups that the retention rules do not keep, and unreferenced content."""
    from holdfast.operations import prune as operation

    app = session.changing_app()
    plan = operation.plan(app)
    if plan.parameters.remove and not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run)


@backup.command(examples=[("backup delete 20261120082512 --sanitized", "A sanitized backup that nobody needs.")])
@click.argument("reference", metavar="ID")
@click.option("--sanitized", is_flag=True, help="A sanitized backup; all others leave by `backup prune`.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def delete(session: Session, reference: str, sanitized: bool, dry_run: bool) -> None:
    """Delete a sanitized backup. Other backups are deleted by `backup prune`, which keeps what is still needed."""
    if not sanitized:
        raise UsageError(
            "only sanitized backups are deleted by name",
            next_step="For others, unpin it if it is pinned, and run: holdfast backup prune",
        )
    sanitized_backups.delete(session, reference, dry_run=dry_run)


@backup.command(
    examples=[
        ("backup pin 2026-11-20-082512", "Keep it."),
        ("backup pin 2026-11-20-082512 --off", "The rules decide again."),
    ]
)
@click.argument("reference", metavar="ID")
@click.option("--off", is_flag=True, help="Remove the pin.")
@common
def pin(session: Session, reference: str, off: bool) -> None:
    """Keep a backup regardless of the retention rules."""
    from holdfast.operations import backup as operation

    app = session.app()
    found = operation.find(app, reference)
    operation.vault(app).pin(found.id, "operator", not off)
    session.renderer.line(f"{found.id} is {'not pinned any more' if off else 'pinned'}")
    session.renderer.result({"backup": found.id, "pinned": not off})


backup.add_command(backup_files.files)
backup.add_command(backup_files.find)
backup.add_command(backup_files.diff)
backup.add_command(backup_export.export)
