"""The dry run: how long visitors see the maintenance page, and in all; what never ran is not guessed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.cli.forecast import forecast
from holdfast.cli.next_steps import after, site_of
from holdfast.cli.render import Renderer
from holdfast.engine.runner import Result
from holdfast.model import Outcome, Plan
from tests.fakes import Step
from tests.unit.applications import make_app

STEPS = tuple(Step(name, name) for name in ("package.build", "gate.close", "task.run", "gate.open", "release.prune"))
PLAN = Plan(kind="upgrade", title="upgrade to v2", steps=STEPS[:4], after_commit=STEPS[4:])
HISTORY = {"package.build": 40.0, "gate.close": 0.4, "task.run": 61.2, "gate.open": 0.4, "release.prune": 0.02}


def test_the_window_is_from_the_closed_to_the_open_gate() -> None:
    found = forecast(PLAN, lambda name, title: HISTORY[name])
    assert found.lines("upgrade") == [
        "Visitors see the maintenance page for about 1 min 2 s.",
        "In all it takes about 1 min 42 s.",
    ]
    assert [found.of_step(number) for number in range(5)] == ["  (about 40 s)", "", "  (about 1 min 1 s)", "", ""]
    assert found.window_seconds == pytest.approx(62.0)


def test_what_never_ran_is_unknown() -> None:
    found = forecast(PLAN, lambda name, title: None)
    assert found.lines("upgrade")[0] == (
        "Visitors see the maintenance page for an unknown time: there was no earlier upgrade here."
    )
    assert found.window_seconds is None
    partly = forecast(PLAN, lambda name, title: None if name == "task.run" else HISTORY[name])
    assert partly.lines("upgrade")[0].endswith("for about 1 s, and the time of what never ran here: task.run.")


def test_without_a_closed_gate_visitors_see_no_page() -> None:
    plan = Plan(kind="upgrade", title="upgrade", steps=STEPS[:1])
    assert forecast(plan, lambda name, title: 1.0).lines("upgrade")[0] == "Visitors see no maintenance page."
    assert (
        forecast(PLAN, lambda name, title: HISTORY[name], has_gate=False)
        .lines("upgrade")[0]
        .startswith("Visitors get no answer for about")
    )


def test_the_plan_ends_with_the_times(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {3: ["python3 manage.py migrate"], 4: ["current -> /srv/r"]}
    Renderer("upgrade").plan(PLAN, commands, forecast(PLAN, lambda name, title: HISTORY[name]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("In all") and lines[-2].startswith("Visitors")
    assert "        $ python3 manage.py migrate" in lines and "        current -> /srv/r" in lines


@pytest.mark.parametrize(
    ("kind", "facts", "hints"),
    [
        ("install", {}, {"site": "http://127.0.0.1:8000/", "next": "holdfast backup create"}),
        ("upgrade", {"set_id": "B"}, {"site": "http://127.0.0.1:8000/", "go back": "holdfast rollback --dry-run"}),
        ("backup.create", {"set_id": "B"}, {"go back": "holdfast backup restore B --dry-run"}),
        ("backup.restore", {"set_id": "B"}, {"go back": "holdfast backup restore B --dry-run"}),
        ("package.build", {"package": "v1-1"}, {"next": "holdfast package deploy v1-1"}),
        ("service.stop", {}, {"start": "holdfast service start"}),
        ("backup.prune", {}, {}),
    ],
)
def test_after_a_success_the_next_commands_are_named(
    kind: str, facts: dict[str, str], hints: dict[str, str], quick_folder: Path
) -> None:
    app = make_app(quick_folder, gate={"kind": "front", "listen": "0.0.0.0:8000"}, services={"web": {"command": ["x"]}})
    result = Result("op", Outcome.COMMITTED, dict(facts), 1.0)
    found = dict(after(app, Plan(kind=kind, title="", steps=()), result))
    assert hints.items() <= found.items()
    if "set_id" in facts:
        assert f"{quick_folder}/vault/backups/B" in found.values()
    app.close()


def test_the_site_of_an_own_proxy_is_where_it_is_checked() -> None:
    gate = SimpleNamespace(kind="nginx", listen="", check_url="https://shop.example/")
    app = SimpleNamespace(loaded=SimpleNamespace(configuration=SimpleNamespace(gate=gate)))
    assert site_of(app) == "https://shop.example/"  # type: ignore[arg-type]
