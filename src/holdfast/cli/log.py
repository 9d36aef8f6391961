"""`holdfast log list | show`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.command import group
from holdfast.cli.render import Column, Renderer
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_seconds, local_minute, local_time, local_zone, seconds_between
from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from holdfast.engine.records import OperationRecord, StepRecord
    from holdfast.engine.strategy import Strategy

_NOT_RUN = "not run"


@group()
def log() -> None:
    """Show operations with every command and its output."""


def outcome_of(operation: OperationRecord) -> str:
    """Return the outcome of an operation; `running` or `interrupted` if it has none yet."""
    if operation.outcome != "open":
        return str(operation.outcome)
    return "running" if operation.owner.alive() else "interrupted"


def duration(operation: OperationRecord) -> float:
    """Return the seconds of an operation: up to its end by a recovery if it was interrupted; 0 if it is open."""
    if operation.seconds or not operation.ended_at:
        return operation.seconds
    return seconds_between(operation.started_at, operation.ended_at)


def took(operation: OperationRecord) -> str:
    """Return the duration of an operation; `-` while it is open."""
    seconds = duration(operation)
    return human_seconds(seconds) if seconds or operation.ended_at else "-"


def state_of(step: StepRecord, operation: OperationRecord, *, undo: str | None = "") -> str:
    """Return the state of a step as an operator reads it, with the duration of its action if it ran.

    `undo` is the title of its undo; empty where it is the step's own, None where there is nothing to undo.
    """
    if step.state == "pending":
        will_run = operation.outcome == "open" or (operation.outcome == "stuck" and operation.committed)
        return "pending" if will_run else _NOT_RUN
    is_undone = step.state == "undone"
    failed = step.state == "failed" or (is_undone and bool(step.error))
    word = "FAILED" if failed else "done" if is_undone else str(step.state)
    if is_undone and not step.seconds:
        word = "begun"
    then = "" if not is_undone or undo is None else f"; undo: {undo}" if undo else ", undone"
    return (f"{word} ({human_seconds(step.seconds)})" if step.seconds else word) + then


def _not_found(asked: str, known: Sequence[OperationRecord], matches: Sequence[OperationRecord]) -> NotFoundError:
    if matches:
        names = ", ".join(record.id for record in matches[:5])
        return NotFoundError(f"{asked!r} matches {len(matches)} operations: {names}", next_step="Give more of the id.")
    from holdfast.config.similar import no_such

    step = "Run `holdfast log list` to see the operations."
    return no_such("operation", asked, ["latest", *(record.id for record in known)], next_step=step, cutoff=0.85)


@log.command("list", examples=[("log list -n 50", "More of them.")])
@click.option("-n", "--number", default=20, show_default=True, help="How many.")
@common
def list_(session: Session, number: int) -> None:
    """List operations, newest first."""
    app = session.app()
    found = app.journal.operations(number)
    session.renderer.table(
        [
            "OPERATION",
            Column(f"STARTED ({local_zone()})", optional=True),
            "OUTCOME",
            Column("TOOK", right=True),
            Column("WHAT", wraps=True),
        ],
        [[item.id, local_minute(item.started_at), outcome_of(item), took(item), item.title] for item in found],
        empty="There was no operation yet.",
    )
    session.renderer.result(
        {
            "operations": [
                {
                    "id": item.id,
                    "title": item.title,
                    "outcome": item.outcome,
                    "started_at": item.started_at,
                    "seconds": duration(item),
                    "user": item.user,
                }
                for item in found
            ]
        }
    )


def _head(renderer: Renderer, record: OperationRecord, how: Strategy | None) -> None:
    for key, value in {
        "operation": record.id,
        "what": record.title,
        "command": record.command,
        "user": record.user,
        "started": local_time(record.started_at),
        "ended": local_time(record.ended_at),
        "took": took(record),
        "outcome": outcome_of(record),
        "error": record.error or "-",
        **({"undone by": f"{how.name}: because {how.because}"} if how is not None else {}),
        **({"reason": reason} if (reason := record.plan.get("parameters", {}).get("reason")) else {}),
    }.items():
        renderer.line(f"{key:10} {value}".replace("\n", f"\n{'':10} "))


def _step(renderer: Renderer, step: StepRecord, state: str) -> None:
    """Print a step that ran, or that will."""
    if state == _NOT_RUN:
        return
    renderer.line(f"  {step.position + 1:2}. {step.title}: {state}")
    for text in (*step.error.splitlines(), *(f"note: {text}" for text in step.facts.get("warnings", []))):
        renderer.line(f"      {text}")


def _commands(renderer: Renderer, lines: Sequence[Mapping[str, Any]]) -> None:
    """Print commands with their output in whole lines, however it was read."""
    for kind, those in itertools.groupby(lines, key=lambda line: line["kind"]):
        for line in those if kind != "output" else ():
            if kind == "command":
                renderer.line(f"{local_time(line['at'])} $ {' '.join(line['argv'])}", whole=True)
            elif kind == "exit":
                renderer.line(f"    exit code {line['exit_code']} after {human_seconds(line['seconds'])}")
        if kind == "output":
            for text in "".join(line["text"] for line in those).splitlines():
                renderer.line(f"    {text}", whole=True)


@log.command(examples=[("log show latest", "Why did it fail?")])
@click.argument("operation", metavar="ID")
@common
def show(session: Session, operation: str) -> None:
    """Show one operation (an id, a unique part of it, or `latest`): steps, commands, output, redacted."""
    app = session.app()
    known = app.journal.operations(1000)
    matches = known[:1] if operation == "latest" else [item for item in known if operation in item.id]
    if len(matches) != 1:
        raise _not_found(operation, known, matches)
    record = matches[0]
    path = app.loaded.state / "logs" / f"{record.id}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    undone = [line for line in lines if line["kind"] == "undone"]
    how = app.runner.strategy_of(record.id)
    _head(session.renderer, record, how)
    for step in app.journal.steps(record.id):
        handler = app.runner.handlers.get(step.name)
        undo = None if undone or handler is None or handler.undo is None else handler.undo_title
        _step(session.renderer, step, state_of(step, record, undo=undo))
    for line in undone:
        session.renderer.line(f"  undo: {line['title']}: done ({human_seconds(line['seconds'])})")
    _commands(session.renderer, lines)
    steps = [
        {
            "name": step.name,
            "title": step.title,
            "state": step.state,
            "facts": step.facts,
            "error": step.error,
            "seconds": step.seconds,
        }
        for step in app.journal.steps(record.id)
    ]
    session.renderer.result(
        {
            "id": record.id,
            "title": record.title,
            "outcome": record.outcome,
            "error": record.error,
            "command": record.command,
            "user": record.user,
            **({"undone_by": {"strategy": how.name, "because": how.because}} if how is not None else {}),
            "steps": steps,
            "log": lines,
        }
    )
