"""`holdfast recover`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.cli.command import command
from holdfast.cli.progress import ProgressObserver
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_seconds
from holdfast.errors import ConfigurationError, HoldfastError, NotFoundError

if TYPE_CHECKING:
    from holdfast.engine.strategy import Strategy


@command(
    examples=[
        ("recover", "Undo or finish what was interrupted."),
        ("recover --auto", "At boot: also start the services."),
    ]
)
@click.option("--auto", is_flag=True, help="For boot: wait for mounts, start services, recover, start the rest.")
@click.option("--abandon", metavar="REASON", help="Close interrupted and stuck operations without an undo.")
@click.option("--state", metavar="FOLDER", help="State directory, if holdfast.toml can no longer be read.")
@common
def recover(session: Session, auto: bool, abandon: str | None, state: str | None) -> None:
    """Bring an interrupted operation to its end: undo it before its commit, finish it after that.

    Recovery uses the configuration with which the operation began, not today's file.
    """
    from holdfast.operations import recover as operation

    observer = ProgressObserver(session.renderer)
    if abandon is not None:
        app = session.app()
        session.confirm(
            "Close the operation without an undo? Visitors see the maintenance page until `holdfast maintenance off`."
        )
        closed = operation.abandon(app, abandon)
        session.renderer.line(f"closed without an undo: {', '.join(closed)}")
        for line in _AFTER_ABANDON:
            session.renderer.line(line)
        session.renderer.result({"abandoned": closed})
        return
    started: list[str] = []
    if auto:
        boot = operation.at_boot(session.loaded(), observer=observer)
        done, started = boot.recovered, boot.started
    else:
        done = operation.recover(_state(session, state), observer=observer)
    for item in done:
        session.renderer.line(f"{item.title} ({item.operation}): {item.outcome} in {human_seconds(item.seconds)}")
        if item.outcome == "undone":
            release = f" (release {item.release})" if item.release else ""
            services = " `holdfast service status` shows what runs." if item.kind.startswith("service.") else ""
            session.renderer.line(f"The state before the operation is back{release}.{services}")
        if item.undone_by is not None:
            session.renderer.line(str(item.undone_by))
    if started:
        session.renderer.line(f"started: {', '.join(started)}")
    if not done:
        session.renderer.line("no operation was interrupted")
        for line in _not_running(session) if not auto and state is None else ():
            session.renderer.line(line)
    session.renderer.result(
        {
            "recovered": [
                {
                    "operation": item.operation,
                    "outcome": str(item.outcome),
                    "seconds": item.seconds,
                    **_undone_by(item.undone_by),
                }
                for item in done
            ],
            "started": started,
        }
    )


def _undone_by(strategy: Strategy | None) -> dict[str, object]:
    return {"undone_by": {"strategy": strategy.name, "because": strategy.because}} if strategy is not None else {}


_AFTER_ABANDON = (
    "Code and database may belong to different versions. Compare the database and `current` with the release that",
    "`holdfast status` names, run `holdfast service start`, look at the application, then run `holdfast maintenance",
    "off`.",
)


def _not_running(session: Session) -> list[str]:
    """Return what to do if services that should run do not, as after a reboot."""
    from holdfast.reports.status import not_running

    try:
        missing = not_running(session.app())
    except HoldfastError:  # there is no application to look at
        return []
    return [f"Not running, and should run: {', '.join(missing)}. Run: holdfast recover --auto"] if missing else []


def _state(session: Session, given: str | None) -> Path:
    """Return the state directory: as given, as configured, or as the marker in the releases folder names it."""
    if given:
        path = Path(given)
        if not (path / "journal.sqlite3").exists():
            raise NotFoundError(f"{path} is not a state directory: it has no journal.sqlite3")
        return path
    try:
        loaded = session.loaded()
        if (loaded.state / "journal.sqlite3").exists():
            return Path(loaded.state)
    except ConfigurationError as error:
        found = _from_marker(session)
        if found is None:
            raise HoldfastError(
                error.what,
                state="The configuration cannot be read, and no marker names the state directory.",
                next_step="Run: holdfast recover --state FOLDER",
            ) from error
        return found
    return _from_marker(session) or Path(loaded.state)


def _from_marker(session: Session) -> Path | None:
    import json

    from holdfast.config.load import find_file

    for marker in sorted(find_file(session.config).parent.glob("*/.holdfast-owner.json")):
        try:
            state = Path(json.loads(marker.read_text())["state"])
        except (OSError, ValueError, KeyError):
            continue
        if (state / "journal.sqlite3").exists():
            return state
    return None
