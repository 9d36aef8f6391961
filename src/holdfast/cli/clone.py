"""`holdfast clone FROM TO`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.cli.command import command
from holdfast.cli.leaving import REASON, consent
from holdfast.cli.session import Session, common

if TYPE_CHECKING:
    from holdfast.application.application import App


@command(
    examples=[
        ("clone production staging", "The databases of now, sanitized by the rules of production."),
        ("clone production staging --unsanitized --backup latest --dry-run", "What would happen with everything?"),
        (
            "clone production staging --unsanitized --reason 'ticket 12'",
            "Copy the data of now, unchanged; the log keeps why.",
        ),
    ]
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--backup", "reference", metavar="ID", help="An existing backup of FROM (or `latest`); default: a new one."
)
@click.option("--only", multiple=True, metavar="NAME", help="Only this dataset (may be repeated).")
@click.option("--except", "except_", multiple=True, metavar="NAME", help="Without this dataset (may be repeated).")
@click.option("--unsanitized", is_flag=True, help="Copy the data unchanged, including personal data.")
@REASON
@click.option("--no-safety", is_flag=True, help="Make no safety backup of the replaced data.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing. Needs --backup.")
@common
def clone(
    session: Session,
    source: str,
    target: str,
    reference: str | None,
    only: tuple[str, ...],
    except_: tuple[str, ...],
    unsanitized: bool,
    reason: str,
    no_safety: bool,
    dry_run: bool,
) -> None:
    """Copy the data of one environment to another, which is never production.

    Without --unsanitized these are the databases, sanitized by the rules of FROM; files of TO stay as they are.

    FROM and TO are environments of this holdfast.toml, or paths of others. The copy is one operation of TO: on any
    failure its earlier data is back. Its own code and configuration stay; `migrate` and `after_clone` run in it.
    """
    from holdfast.errors import UsageError
    from holdfast.operations import backup
    from holdfast.operations import clone as operation

    if not unsanitized:
        if except_ or len(only) > 1:
            raise UsageError(
                "a sanitized clone takes all databases, or one by --only", next_step="Or add --unsanitized."
            )
        _sanitized(session, source, target, reference, next(iter(only), None), safety=not no_safety, dry_run=dry_run)
        return
    if dry_run and reference is None:
        raise UsageError("without a backup there is no plan to show", next_step="Name one: --backup latest")
    before, app = _opened(session, source), _opened(session, target)
    operation.refuse(app, before, unsanitized=unsanitized)
    if not dry_run:
        reason = consent(session, before, f"data of {source}", unsanitized=unsanitized, reason=reason)
    if not dry_run:
        session.confirm(
            f"Replace the data of {target} with the data of {source}?", (f"{source}: unsanitized, with personal data",)
        )
    wait_seconds = app.loaded.configuration.backup.wait_seconds
    if reference is None:
        made = before.run(
            backup.plan(before, only=only, except_=except_, comment=f"for a clone to {target}"),
            wait_seconds=wait_seconds,
        )
        reference = made.facts["set_id"]
        session.renderer.line(f"backup {reference} of {source}")
    plan = operation.plan(
        app, before, reference, only=only, except_=except_, unsanitized=unsanitized, safety=not no_safety, reason=reason
    )
    session.run(app, plan, dry_run=dry_run, wait_seconds=wait_seconds)


def _sanitized(
    session: Session,
    source: str,
    target: str,
    reference: str | None,
    database: str | None,
    *,
    safety: bool,
    dry_run: bool,
) -> None:
    """Make a sanitized backup of the source, or take one, and load it into the target."""
    from holdfast.application import sanitizing
    from holdfast.operations import clone as operation
    from holdfast.operations import sanitized

    before, app = _opened(session, source), _opened(session, target)
    operation.refuse_target(app, before)
    sanitizing.ready(before.context)
    if dry_run and reference is None:
        session.run(before, sanitized.plan(before, comment=f"for a clone to {target}"), dry_run=True)
        return
    if not dry_run:
        session.confirm(f"Replace the databases of {target} with sanitized ones of {source}?", ())
    wait_seconds = app.loaded.configuration.backup.wait_seconds
    if reference is None:
        plan = sanitized.plan(before, comment=f"for a clone to {target}")
        before.run(plan, wait_seconds=wait_seconds)
        reference = plan.parameters.set
        session.renderer.line(f"sanitized backup {reference} of {source}")
    found = sanitizing.store(before.context).find(reference or "latest")
    for name in [database] if database is not None else [one.database for one in found.files.values()]:
        load = sanitized.plan_restore(app, found, before, database=name, safety=safety, clone=True)
        session.run(app, load, dry_run=dry_run, wait_seconds=wait_seconds)


def _opened(session: Session, name: str) -> App:
    """Return an environment of this configuration, or the application of another file.

    Refuse it while it waits for `recover`.
    """
    from holdfast.config.load import load

    other = name in (".", "..") or name.endswith(".toml") or "/" in name
    app = session.opened(load(name, None) if other else load(session.config, name))
    app.runner.refuse_if_interrupted()
    return app
