"""`holdfast demo`."""

from __future__ import annotations

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common


@command(examples=[("demo --keep", "Keep the repository of the guestbook for the tutorial.")])
@click.option("--keep", is_flag=True, help="Keep the folder afterwards.")
@click.option("--repository", metavar="FOLDER", help="Only write the application's git repository, to a new folder.")
@common
def demo(session: Session, keep: bool, repository: str | None) -> None:
    """Demonstrate everything on a small application in a temporary folder, under constant load, in about a minute.

    The demo stops after the first step that fails, with exit code 1. Ctrl-C, SIGTERM and SIGHUP stop it, too, with exit
    code 130. However it ends, except after SIGKILL, its processes are ended, and its folder is removed unless it is to
    be kept.
    """
    if repository is not None:
        from holdfast.demo.repository import write_repository

        session.renderer.result({"repository": str(write_repository(repository))})
        session.renderer.line(f"The guestbook's repository, with the tags v1 to v6.1, is in {repository}.")
        return
    from holdfast.demo.stop import Stop

    with Stop() as stop:
        from holdfast.demo.story import tell

        session.renderer.result(tell(session.renderer.line, session.renderer.table, stop, keep=keep))
