"""Stopping and starting again: what was unwell before must not stop an undo, and gets time to become well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from holdfast.app import App
from holdfast.errors import StepError
from holdfast.model import Release, ServiceInstance, ServiceStatus
from holdfast.steps import services, verification
from tests.unit.applications import make_app, make_context

WEB = ServiceInstance(
    name="web-r1", service="web", kind="web", release="r1", directory="/", command=("serve",), environment={}, port=4711
)


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    web = {"command": ["serve"], "health": "/health", "settle_seconds": 0}
    app = make_app(quick_folder, services={"web": web})
    services.set_wanted(app.opened, [WEB])
    app.opened.runtime.start(WEB)
    yield app
    app.close()


def stop_and_start(app: App, monkeypatch: pytest.MonkeyPatch, *healthy: bool) -> tuple[list[bool], list[str]]:
    """The answers of the health check that were not asked for, the last one repeating, and what was said."""
    answers = list(healthy)
    monkeypatch.setattr(
        verification, "answers", lambda *_: (answers.pop(0) if len(answers) > 1 else answers[0], "asked")
    )
    context, recorded, said = make_context()
    services.stop_all(app.opened, context)
    assert app.opened.runtime.statuses() == {}
    context.facts.update(recorded)
    services.start_stopped(app.opened, context)
    assert services.wanted(app.opened) == [WEB]
    return answers, said


def test_one_that_was_unwell_is_waited_for_until_it_is_well(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stop_and_start(app, monkeypatch, False, False, False, True) == ([True], [])


def test_one_that_stays_unwell_stops_no_undo_and_is_named(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_UNWELL_SECONDS", 0.1)
    _, said = stop_and_start(app, monkeypatch, False)
    assert "service web of release r1: it is not well" in said[0]


def make_it_end_first(app: App, monkeypatch: pytest.MonkeyPatch, *details: str) -> None:
    """Each start is followed by these states before the service runs."""
    runtime, left = app.opened.runtime, list(details)
    real = runtime.statuses

    def statuses() -> dict[str, ServiceStatus]:
        if left and real():
            return {WEB.name: ServiceStatus(WEB.name, False, None, 0.0, left.pop(0))}
        return real()

    monkeypatch.setattr(runtime, "statuses", statuses)


def test_what_ran_before_gets_the_retries_of_its_runtime(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "answers", lambda *_: (True, "asked"))
    context, recorded, said = make_context()
    services.stop_all(app.opened, context)
    make_it_end_first(app, monkeypatch, "starting", "backoff", "exited", "backoff")
    context.facts.update(recorded)
    services.start_stopped(app.opened, context)
    assert (services.wanted(app.opened), said) == ([WEB], [])


def test_a_new_release_does_not(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    make_it_end_first(app, monkeypatch, "backoff")
    with pytest.raises(StepError, match=r"does not stay up \(backoff\)"):
        verification.verify(app.opened, WEB, make_context()[0])


def test_what_runs_and_should_not_is_ended_with_the_rest(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a `service start` that was killed: visitors may be served by what nobody remembers."""
    monkeypatch.setattr(verification, "answers", lambda *_: (True, "asked"))
    services.set_wanted(app.opened, [])
    context, _, _ = make_context()
    services.stop_all(app.opened, context)
    assert app.opened.runtime.statuses() == {}


@pytest.mark.parametrize("tolerant", [True, False])
def test_a_scheduler_that_dies_after_the_commit_is_told(quick_folder: Path, tolerant: bool) -> None:
    app = make_app(quick_folder, services={"beat": {"command": ["false"], "kind": "scheduler"}})
    context, _, said = make_context()
    release = Release("r1", "p1", "v1", "c1", "/", "2026-01-01T00:00:00Z", "op1")
    context.parameters = {"release": asdict(release), "kinds": ["scheduler"], "tolerant": tolerant}
    if tolerant:
        services.start_release(app.opened, context)
        assert "holdfast service restart beat" in said[0]
        assert [instance.service for instance in services.started(app.opened, "op1")] == ["beat"]
    else:
        with pytest.raises(StepError):
            services.start_release(app.opened, context)
    app.close()
