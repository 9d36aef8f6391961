"""A step as one class: what the journal keeps of it, and what of another version is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import RefusedError
from holdfast.steps.gate import CloseGate, HoldGate, OpenGate
from holdfast.steps.table import TABLE, TYPED, handlers
from holdfast.steps.typed import handler
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
    planned = step.planned()
    assert (planned.name, planned.parameters) == (name, parameters)
    assert planned.title == step.title != ""


def test_every_step_has_one_place(folder: Path) -> None:
    assert not {kind.name for kind in TYPED} & TABLE.keys()
    app = make_app(folder)
    bound = handlers(app.opened)
    assert bound.keys() == {*TABLE, *(kind.name for kind in TYPED)}
    assert (bound["gate.close"].undo is None, bound["gate.open"].undo is None) == (False, True)
    app.close()


@pytest.mark.parametrize("parameters", [{"coment": "x"}, {"comment": 5}])
def test_parameters_of_another_version_are_refused(folder: Path, parameters: dict[str, Any]) -> None:
    app = make_app(folder)
    context, _, _ = make_context(parameters=parameters)
    with pytest.raises(RefusedError, match=r"the step gate\.close in the journal is not one of this version"):
        handler(CloseGate, app.opened).do(context)
    app.close()


def test_what_is_recorded_is_found_by_the_undo(folder: Path) -> None:
    app = make_app(folder)
    before = {"comment": "mine"}
    app.opened.gate.hold(before)
    hold = handler(HoldGate, app.opened)
    context, recorded, _ = make_context(parameters={"hold": None})
    hold.do(context)
    assert app.opened.gate.state().hold is None
    context.facts = recorded
    assert hold.undo is not None
    hold.undo(context)
    assert app.opened.gate.state().hold == before
    app.close()
