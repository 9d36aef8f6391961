"""What commands print: steps that never ran, durations that nobody knows, and advice before the installation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest

from holdfast.application.application import App
from holdfast.cli import backup as commands
from holdfast.cli import log
from holdfast.cli.render import Renderer
from holdfast.cli.session import Session
from holdfast.engine.runner import Result
from holdfast.errors import UsageError
from holdfast.model import Outcome, Plan, Problem, Release, Running, StepState
from holdfast.operations import rollback
from holdfast.reports import check
from holdfast.steps.backup import PublishBackup
from holdfast.steps.typed import handler
from tests.fakes import Step
from tests.unit.applications import make_app, make_backup


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    made = make_app(
        quick_folder,
        source={"repository": str(quick_folder), "python": {}},
        services={"web": {"command": ["no-such-program"]}},
    )
    yield made
    made.close()


def operation_of(app: App, *names: str) -> str:
    steps = tuple(Step(name, name) for name in names)
    return app.journal.begin(Plan(kind="upgrade", title="upgrade", steps=steps), command="", configuration={}, user="")


def states(app: App, operation: str) -> list[str]:
    record = app.journal.operation(operation)
    assert record is not None
    return [log.state_of(step, record) for step in app.journal.steps(operation)]


def test_the_log_tells_a_failed_step_from_one_that_never_ran(app: App) -> None:
    operation = operation_of(app, "one", "two", "three")
    app.journal.step(operation, 0, StepState.DONE, seconds=2)
    app.journal.step(operation, 1, StepState.FAILED, error="no", seconds=1)
    assert states(app, operation) == ["done (2.0 s)", "FAILED (1.0 s)", "pending"]
    for position in (1, 0):
        app.journal.step(operation, position, StepState.UNDONE)
    app.journal.finish(operation, Outcome.UNDONE, error="no", seconds=3)
    assert states(app, operation) == ["done (2.0 s), undone", "FAILED (1.0 s), undone", "not run"]


def test_the_log_says_what_an_undo_did_and_claims_none_for_a_step_that_has_none(app: App) -> None:
    operation = operation_of(app, "one")
    app.journal.step(operation, 0, StepState.DONE, seconds=2)
    app.journal.step(operation, 0, StepState.UNDONE)
    record = app.journal.operation(operation)
    assert record is not None
    (step,) = app.journal.steps(operation)
    kept = handler(PublishBackup, app.context).undo_title
    assert log.state_of(step, record, undo=kept) == "done (2.0 s); undo: unpin the backup (it is kept)"
    assert log.state_of(step, record, undo=None) == "done (2.0 s)"


def test_closing_steps_of_a_stuck_operation_are_pending_once_it_committed(app: App) -> None:
    operation = operation_of(app, "one")
    record = app.journal.operation(operation)
    assert record is not None
    (step,) = app.journal.steps(operation)
    for committed, said in ((True, "pending"), (False, "not run")):
        stuck = msgspec.structs.replace(record, outcome=Outcome.STUCK, committed=committed)
        assert log.state_of(step, stuck) == said


def test_an_interrupted_operation_took_as_long_as_its_recovery_needed(app: App) -> None:
    operation = operation_of(app)
    record = app.journal.operation(operation)
    assert record is not None
    assert (log.outcome_of(record), log.took(record)) == ("running", "-")
    gone = msgspec.structs.replace(record, owner=msgspec.structs.replace(record.owner, pid=1, start_ticks=0))
    assert log.outcome_of(gone) == "interrupted"
    times = {"started_at": "2026-11-30T02:00:00Z", "ended_at": "2026-11-30T02:02:05Z"}
    recovered = msgspec.structs.replace(gone, outcome=Outcome.UNDONE, **times)
    assert (log.outcome_of(recovered), log.took(recovered)) == ("undone", "2 min 5 s")
    assert log.took(msgspec.structs.replace(recovered, seconds=0.25)) == "250 ms"


def test_the_log_is_shown_in_whole_lines_and_says_what_failed(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operation = operation_of(app, "one", "two", "three")
    app.journal.step(operation, 0, StepState.DONE, seconds=2)
    app.journal.step(operation, 1, StepState.FAILED, error="no\n  | why", seconds=1)
    for position in (1, 0):
        app.journal.step(operation, position, StepState.UNDONE)
    app.journal.finish(operation, Outcome.UNDONE, error="no\n  | why", seconds=3)
    path = app.loaded.state / "logs" / f"{operation}.jsonl"
    path.parent.mkdir()
    records = [
        {"kind": "command", "argv": ["migrate", "--all"]},
        {"kind": "output", "text": "apply"},
        {"kind": "output", "text": "ing 1\n\x1b[2Japplying 2"},
        {"kind": "exit", "exit_code": 1, "seconds": 2.0},
        {"kind": "undone", "title": "drop one", "seconds": 0.5},
    ]
    path.write_text("".join(json.dumps({"at": "2026-11-30T02:12:22Z", **record}) + "\n" for record in records))
    monkeypatch.setattr(Session, "app", lambda self: app)
    with click.Context(click.Command("show")):
        log.show.main(["latest"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[7:15] == [
        "outcome    undone",
        "error      no",
        "             | why",
        "   1. one: done (2.0 s)",
        "   2. two: FAILED (1.0 s)",
        "      no",
        "        | why",
        "  undo: drop one: done (500 ms)",
    ]
    assert lines[15].endswith(" $ migrate --all")
    assert lines[16:] == ["    applying 1", r"    \x1b[2Japplying 2", "    exit code 1 after 2.0 s"]


def advice(app: App) -> dict[str, str]:
    return {problem.subject: problem.advice for problem in check.problems(app)}


def test_before_the_installation_the_programs_of_the_release_are_not_missed(app: App) -> None:
    app.context.runtime.up = False  # type: ignore[attr-defined]  # a fake
    found = advice(app)
    assert "services.web" not in found
    assert found["runtime"] == "holdfast install REF"
    operation = operation_of(app)
    release = Release("r", "r", "v1", "c" * 40, str(app.loaded.root), "2026-01-01T00:00:00Z")
    app.journal.commit(operation, {"release": msgspec.structs.asdict(release)})
    app.journal.finish(operation, Outcome.COMMITTED)
    found = advice(app)
    assert "no-such-program" in found["services.web"]
    assert "install" not in found["runtime"]


def test_a_refused_rollback_says_for_how_long_replaced_data_is_kept(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(quick_folder, upgrade={"keep_replaced": "36h"})
    monkeypatch.setattr(app.context.databases["main"], "tables", dict)
    release = Release("r", "r", "v1", "c" * 40, "/r", "2026-01-01T00:00:00Z")
    found = make_backup(1, "2026-01-01T00:00:00Z")
    refused = rollback._refusal(app, release, found, "is older", keep_data=False)
    assert "is also kept for 36h" in refused.next_step
    assert "as it was at 2026-01-01T00:00:00Z" in refused.what
    assert refused.state.startswith("Rows per table:\n") and "would lose" not in refused.state
    app.close()


def test_without_a_terminal_the_refusal_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(UsageError, match="is not a terminal") as refused:
        Session(Renderer("rollback"), config=None, environment=None, yes=False).confirm("Go back?")
    assert refused.value.next_step == "Run the command again with --yes."


def test_a_verification_takes_as_long_as_it_took(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter((10.0, 12.5))
    monkeypatch.setattr(Session, "app", lambda self: app)
    monkeypatch.setattr(commands, "time", type("Clock", (), {"monotonic": staticmethod(lambda: next(now))}))
    monkeypatch.setattr(app.context.vault, "verify", lambda *_: [])
    with click.Context(click.Command("verify")):
        commands.verify.main([], standalone_mode=False)
    assert "verify: done (2.5 s)" in capsys.readouterr().err


@pytest.mark.parametrize(("databases", "files"), [({}, {}), ({"main": {"kind": "sqlite", "path": "a"}}, {})])
def test_an_application_without_data_is_warned_of(
    quick_folder: Path, databases: dict[str, Any], files: dict[str, Any]
) -> None:
    app = make_app(quick_folder, databases=databases, files=files)
    said = [problem.message for problem in check.problems(app)]
    assert any("contains only the code" in message for message in said) == (not databases)
    app.close()


def test_a_port_that_adopt_frees_is_no_error(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    used = Problem("gate", "error", "0.0.0.0:8088 cannot be opened: Address already in use")
    gate = app.context.loaded.configuration.gate
    monkeypatch.setattr(app.context.gate, "check", lambda: [used])
    monkeypatch.setattr(app.context.gate, "instance", lambda: "front")
    running = {"web": Running("id", "image", int(gate.listen.rpartition(":")[2]))}
    monkeypatch.setattr(app.context, "containers", SimpleNamespace(running=lambda services: running))
    (note,) = check._gate(app)
    assert (note.severity, note.advice) == ("note", "holdfast adopt")
    running["web"] = Running("id", "image", 1)
    assert check._gate(app) == [used]


def test_a_problem_that_several_parts_meet_is_reported_once_under_its_key() -> None:
    met = [
        Problem(subject, "error", "no service", "Correct it.") for subject in ("owner", "databases.main", "left_overs")
    ]
    assert [problem.subject for problem in check._once([*met, Problem("gate", "error", "other")])] == [
        "databases.main",
        "gate",
    ]


def test_what_was_asked_is_not_printed_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    renderer = Renderer("backup prune")
    monkeypatch.setattr(renderer, "note", printed.append)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda *_, **options: True)
    monkeypatch.setattr(App, "run", lambda *_, **options: Result("op", Outcome.COMMITTED, {}, 1.0))
    plan = Plan(kind="backup.prune", title="prune", steps=(), notes=("removes one",))
    for yes, wanted in ((False, ["removes one"]), (True, ["note: removes one"])):
        session = Session(renderer, config=None, environment=None, yes=yes)
        session.confirm("prune?", plan.notes)
        session.run(app, plan)
        assert printed == wanted
        printed.clear()


def test_an_open_operation_comes_after_what_its_recovery_needs(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("databases.main", "error", "service db has no container", "docker compose up --detach db")
    monkeypatch.setattr(app.context.databases["main"], "check", lambda: [problem])
    app.journal.finish(operation_of(app, "one"), Outcome.STUCK, error="no")
    subjects = [found.subject for found in check.problems(app)]
    assert subjects.index("databases.main") < subjects.index("operation")
