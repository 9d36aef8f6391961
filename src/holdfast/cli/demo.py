"""`holdfast demo`."""

from __future__ import annotations

import click

from holdfast.cli.session import Session, common


@click.command()
@click.option("--keep", is_flag=True, help="Keep the folder afterwards.")
@common
def demo(session: Session, keep: bool) -> None:
    """Show it all on a small application in a temporary folder, under constant load, in about a minute."""
    from holdfast.demo.story import tell

    result = tell(session.renderer.line, session.renderer.table, keep=keep)
    session.renderer.result(result)
    if not result["ok"]:
        raise SystemExit(1)
