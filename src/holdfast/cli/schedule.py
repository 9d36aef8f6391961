"""`holdfast schedule list | run NAME`."""

from __future__ import annotations

import click
from msgspec.structs import asdict

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_seconds, local_minute, local_zone


@group()
def schedule() -> None:
    """Show scheduled tasks, and run one now."""


@schedule.command("list", examples=[("schedule list", "When did each run, how did it end, and when does it run next?")])
@common
def list_(session: Session) -> None:
    """List scheduled tasks with their last exit code and their next run."""
    from holdfast.reports import schedule as report

    app = session.app()
    found = report.entries(app)
    session.renderer.table(
        [
            "TASK",
            "WHEN (UTC)",
            Column(f"LAST ({local_zone()})", optional=True),
            Column("EXIT CODE", right=True),
            Column("TOOK", right=True),
            f"NEXT ({local_zone()})",
        ],
        [
            [
                item.name,
                item.when,
                local_minute(item.last_start) if item.last_start else "-",
                "running" if item.running else "-" if item.last_exit_code is None else str(item.last_exit_code),
                human_seconds(item.last_seconds) if item.last_seconds is not None and not item.running else "-",
                local_minute(item.next_run) if item.next_run else "-",
            ]
            for item in found
        ],
        empty="There is no [schedule.NAME] in holdfast.toml.",
    )
    runs = report.is_running(app)
    if found and not runs and session.renderer.to_person:
        session.renderer.aside("The scheduler does not run. To start it, run: holdfast service start schedule")
    session.renderer.result({"scheduler": runs, "tasks": [asdict(item) for item in found]})


@schedule.command(examples=[("schedule run cleanup", "Do not wait for its time.")])
@click.argument("name", metavar="NAME")
@common
def run(session: Session, name: str) -> None:
    """Run a scheduled task now; never twice at once."""
    from holdfast.reports import schedule as report

    report.run(session.app(), name)
    session.renderer.line(f"{name}: done")
    session.renderer.result({"task": name})
