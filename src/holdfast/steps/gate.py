"""Holding visitors and letting them in; the gate opens on a new release only after the commit record."""

from __future__ import annotations

from typing import Any

from holdfast.application.context import Opened
from holdfast.application.instances import target_of
from holdfast.engine.runner import StepContext
from holdfast.errors import StepError
from holdfast.steps import services


def ensure_running(opened: Opened) -> bool:
    """Starts the gate's own server where it has one; True if it was not running."""
    instance = opened.gate.instance()
    if instance is None:
        return False
    if _runs(opened):
        services.start_gate(opened)
        return False
    problems = [problem for problem in opened.gate.check() if problem.severity == "error"]
    if problems:
        raise StepError(problems[0].message, next_step=problems[0].advice)
    services.start_gate(opened)
    return True


def _runs(opened: Opened) -> bool:
    instance = opened.gate.instance()
    status = opened.gate_runtime.statuses().get(instance.name) if instance is not None else None
    return status is not None and status.running


def close(opened: Opened, context: StepContext) -> None:
    reason: dict[str, Any] = {"operation": context.operation, "comment": context.parameters.get("comment", "")}
    opened.gate.close(reason)
    if "started" not in context.facts:  # before it is started: killed in between, it would be left with its port
        context.record({"started": opened.gate.instance() is not None and not _runs(opened)})
    if ensure_running(opened):
        opened.gate.close(reason)


def reopen(opened: Opened, context: StepContext) -> None:
    """The undo of `close`: back to the release that is committed, an operator's own hold stays."""
    opened.gate.open()
    instance = opened.gate.instance()
    if instance is not None and context.facts.get("started") and opened.current_release() is None:
        opened.gate_runtime.stop(instance.name)
    elif opened.current_release() is not None:
        services.start_gate(opened)


def open_committed(opened: Opened, context: StepContext) -> None:
    """Names the committed release and its web in the gate's durable file, then lets visitors in."""
    web = [instance for instance in services.started(opened, context.operation) if instance.kind == "web"]
    release = context.commit_facts.get("release")
    if web and release is not None:
        opened.gate.route(release["id"], target_of(opened, web[0]))
    ensure_running(opened)
    opened.gate.open()


def hold(opened: Opened, context: StepContext) -> None:
    """The operator's own maintenance, on or off."""
    if "previous" not in context.facts:
        present = opened.gate.state().hold
        context.record({"previous": dict(present) if present is not None else None})
    opened.gate.hold(context.parameters["hold"])
    holder = (opened.gate.state().operation or {}).get("operation")
    if context.parameters["hold"] is None and holder not in {record.id for record in opened.journal.unfinished()}:
        opened.gate.open()  # left closed by an operation that was abandoned


def unhold(opened: Opened, context: StepContext) -> None:
    if "previous" in context.facts:
        opened.gate.hold(context.facts["previous"])
