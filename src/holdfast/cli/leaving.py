"""Consent to data that leaves production without being sanitized: it is asked for, or given with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.errors import CancelledError, RefusedError

if TYPE_CHECKING:
    from holdfast.application.application import App
    from holdfast.cli.session import Session


def consent(session: Session, app: App, what: str, *, unsanitized: bool, reason: str) -> str:
    """Return why data may leave production, for the record of the operation; empty where it is not production.

    `--yes` does not answer this question. Raise RefusedError or CancelledError.
    """
    if app.loaded.environment_type != "prod":
        return reason
    if unsanitized and reason:
        return reason
    if not session.can_ask:
        raise RefusedError(
            f"{what} of production would leave it without being sanitized, including personal data",
            next_step="If that is intended, add --unsanitized --reason 'WHY'. The record of the operation keeps both.",
        )
    if not unsanitized and not click.confirm(
        f"{what} of production leaves it without being sanitized, including personal data. Continue?", err=True
    ):
        raise CancelledError("stopped at the confirmation", state="Nothing was changed.")
    return reason or click.prompt("Reason, for the record", err=True, type=str)


UNSANITIZED = click.option(
    "--unsanitized", is_flag=True, help="Let production data leave unchanged, including personal data."
)
REASON = click.option("--reason", default="", metavar="TEXT", help="Why data leaves production; the log keeps it.")
