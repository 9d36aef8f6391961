"""A step as one class: what the journal keeps of it, and what of another version is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import RefusedError
from holdfast.model import Plan, StepState
from holdfast.steps.gate import CloseGate, HoldGate, OpenGate
from holdfast.steps.table import STEPS, TABLE, handlers
from holdfast.steps.typed import AnyStep, StepFacts, TypedStep, handler
from tests.fakes import Step
from tests.unit.applications import make_app, make_context


@pytest.mark.parametrize(
    ("step", "name", "parameters"),
    [
        (CloseGate("upgrade to v2"), "gate.close", {"comment": "upgrade to v2"}),
        (OpenGate(), "gate.open", {"drains": False}),
        (HoldGate(None), "gate.hold", {"hold": None}),
    ],
)
def test_the_journal_keeps_a_name_and_parameters(step: Any, name: str, parameters: dict[str, Any]) -> None:
    assert (step.name, step.parameters) == (name, parameters)
    assert step.title


def test_every_step_has_a_name_of_its_own(folder: Path) -> None:
    assert len(STEPS) == len(TABLE)
    app = make_app(folder)
    bound = handlers(app.context)
    assert bound.keys() == TABLE.keys()
    assert (bound["gate.close"].undo is None, bound["gate.open"].undo is None) == (False, True)
    app.close()


def test_every_class_of_a_step_is_in_the_table() -> None:
    def below(kind: type[AnyStep]) -> set[type[AnyStep]]:
        return {kind, *(found for inner in kind.__subclasses__() for found in below(inner))}

    assert {kind for kind in below(TypedStep) if hasattr(kind, "name")} == set(STEPS)


@pytest.mark.parametrize("kind", STEPS)
def test_only_what_has_an_undo_is_undone(kind: type[AnyStep]) -> None:
    assert kind.is_undone == (kind.undo is not TypedStep.undo)
    assert issubclass(kind.facts_type, StepFacts)


@pytest.mark.parametrize("parameters", [{"coment": "x"}, {"comment": 5}])
def test_parameters_of_another_version_are_refused(folder: Path, parameters: dict[str, Any]) -> None:
    app = make_app(folder)
    context, _, _ = make_context(parameters=parameters)
    with pytest.raises(RefusedError, match=r"gate\.close with parameters of another version"):
        handler(CloseGate, app.context).do(context)
    app.close()


@pytest.mark.parametrize(
    ("step", "facts", "said"),
    [
        (Step("gate.close", "", {"comment": "x", "colour": "red"}), {}, r"gate\.close with parameters .*`colour`"),
        (Step("gate.close", "", {"comment": 5}), {}, r"gate\.close with parameters .*`\$\.comment`"),
        (Step("gate.close", ""), {"begun": True}, r"gate\.close with facts .*`begun`"),
        (Step("gate.slam", ""), {}, r"gate\.slam"),
    ],
)
def test_a_recovery_refuses_what_another_version_wrote_before_it_undoes_anything(
    folder: Path, step: Step, facts: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(folder)
    app.runner.handlers = handlers(app.context)
    app.context.gate.hold({"comment": "mine"})
    plan = Plan(kind="upgrade", title="upgrade to v9", steps=(HoldGate(None), step))
    monkeypatch.setattr("holdfast.engine.journal.VERSION", "9.1")
    operation = app.journal.begin(plan, command="", configuration={}, user="")
    for position in (0, 1):
        app.journal.step(operation, position, StepState.DOING)
    app.journal.facts(operation, 0, {"previous": None})
    app.journal.facts(operation, 1, facts)
    record = app.journal.operation(operation)
    assert record is not None
    with pytest.raises(RefusedError, match=rf"upgrade to v9 .* does not know: {said}") as refused:
        app.runner.recover(record)
    assert "Install Holdfast 9.1, which began it" in refused.value.next_step
    assert "holdfast recover" in refused.value.next_step
    assert [one.state for one in app.journal.steps(operation)] == [StepState.DOING, StepState.DOING]
    assert app.context.gate.state().hold == {"comment": "mine"}
    app.close()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("plan", {"parameters": {"colour": "red"}}, "a plan with parameters of another version .*`colour`"),
        ("commit_facts", {"colour": "red"}, "a commit with facts of another version .*`colour`"),
    ],
)
def test_a_recovery_refuses_a_plan_of_another_version(
    folder: Path, column: str, value: dict[str, Any], said: str
) -> None:
    app = make_app(folder)
    app.runner.handlers = handlers(app.context)
    plan = Plan(kind="upgrade", title="upgrade to v9", steps=(CloseGate(),))
    operation = app.journal.begin(plan, command="", configuration={}, user="")
    app.journal._connection.execute(f"UPDATE operation SET {column}=?", (json.dumps(value),))
    record = app.journal.operation(operation)
    assert record is not None
    with pytest.raises(RefusedError, match=said):
        app.runner.recover(record)
    app.close()


def test_what_is_recorded_is_found_by_the_undo(folder: Path) -> None:
    app = make_app(folder)
    before = {"comment": "mine"}
    app.context.gate.hold(before)
    hold = handler(HoldGate, app.context)
    context, recorded, _ = make_context(parameters={"hold": None})
    hold.do(context)
    assert app.context.gate.state().hold is None
    context.facts = recorded
    assert hold.undo is not None
    hold.undo(context)
    assert app.context.gate.state().hold == before
    app.close()
