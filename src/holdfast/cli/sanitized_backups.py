"""The part of `holdfast backup` for sanitized backups: create, list, restore and delete with --sanitized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.cli.render import Column
from holdfast.cli.text import ago, human_bytes

if TYPE_CHECKING:
    from holdfast.cli.session import Session

_LISTED = (
    "BACKUP",
    "AGE",
    Column("RELEASE", optional=True),
    Column("SIZE", right=True),
    Column("FILE AND HOW TO LOAD IT", wraps=True),
)


def create(session: Session, comment: str, *, dry_run: bool) -> None:
    from holdfast.application import sanitizing
    from holdfast.operations import sanitized as operation

    app = session.changing_app()
    plan = operation.plan(app, comment=comment)
    session.run(app, plan, dry_run=dry_run)
    if not dry_run and session.renderer.to_person:
        store = sanitizing.store(app.context)
        for name, facts in store.find(plan.parameters.set or "latest").files.items():
            session.renderer.aside(f"{store.path(name)}\n  {facts.load}")


def show_all(session: Session) -> None:
    from holdfast.application import sanitizing

    app = session.app()
    store = sanitizing.store(app.context)
    found, damaged = store.all()
    session.renderer.table(
        _LISTED,
        [
            [
                item.id if number == 0 else "",
                ago(item.instant) if number == 0 else "",
                item.release or "-",
                human_bytes(facts.size_bytes),
                f"{store.path(name)}\n{facts.load}",
            ]
            for item in found
            for number, (name, facts) in enumerate(item.files.items())
        ],
        empty="There is no sanitized backup yet. To make one, run: holdfast backup create --sanitized",
    )
    for name in damaged:
        session.renderer.aside(f"{store.path(name)} is damaged, and its backup is not listed")
    session.renderer.result(
        {"folder": str(store.folder), "backups": [msgspec.to_builtins(item) for item in found], "damaged": damaged}
    )


def restore(session: Session, reference: str, database: str | None, *, safety: bool, dry_run: bool) -> None:
    from holdfast.application import sanitizing
    from holdfast.operations import sanitized as operation

    app = session.changing_app()
    found = sanitizing.store(app.context).find(reference)
    plan = operation.plan_restore(app, found, app, database=database, safety=safety)
    if not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)


def delete(session: Session, reference: str, *, dry_run: bool) -> None:
    from holdfast.operations import sanitized as operation

    app = session.changing_app()
    plan = operation.plan_delete(app, reference)
    if not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run)
