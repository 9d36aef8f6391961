"""Stopping and starting again: what was unwell before must not stop an undo, and gets time to become well."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.application import health, health_request
from holdfast.application.application import App
from holdfast.application.context import ApplicationContext
from holdfast.errors import HoldfastError, RefusedError, StepError
from holdfast.model import Outcome, Plan, Release, ServiceInstance, ServiceStatus
from holdfast.operations import parts, service
from holdfast.steps import service_steps, services, stopped
from holdfast.steps.service_steps import Action, AdoptServices, CommandServices, StartServices, StopServices
from tests.fakes import FakeRuntime
from tests.unit.applications import do, make_app, make_context, undo

WEB = ServiceInstance(
    name="web-r1", service="web", kind="web", release="r1", directory="/", command=("serve",), environment={}, port=4711
)


SERVICES = {"web": {"command": ["serve"], "health": "/health", "settle_seconds": 0}}


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    app = make_app(quick_folder, services=SERVICES)
    services.set_wanted(app.context, [WEB])
    app.context.runtime.start(WEB)
    yield app
    app.close()


def stop_and_start(app: App, monkeypatch: pytest.MonkeyPatch, *healthy: bool) -> tuple[list[bool], list[str]]:
    """The answers of the health check that were not asked for, the last one repeating, and what was said."""
    answers = list(healthy)
    monkeypatch.setattr(
        health_request,
        "answers",
        lambda *_, **__: health_request.Answer(answers.pop(0) if len(answers) > 1 else answers[0], "asked"),
    )
    context, recorded, said = make_context()
    do(StopServices(), app.context, context)
    assert app.context.runtime.statuses() == {}
    context.facts.update(recorded)
    undo(StopServices(), app.context, context)
    assert services.wanted(app.context) == [WEB]
    return answers, said


def test_one_that_was_unwell_is_waited_for_until_it_is_well(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stop_and_start(app, monkeypatch, False, False, False, True) == ([True], [])


def test_one_that_stays_unwell_stops_no_undo_and_is_named(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_steps, "_UNWELL_SECONDS", 0.1)
    _, said = stop_and_start(app, monkeypatch, False)
    assert "service web of release r1: not healthy after" in said[0]


def make_it_end_first(app: App, monkeypatch: pytest.MonkeyPatch, *details: str) -> None:
    """Each start is followed by these states before the service runs."""
    runtime, left = app.context.runtime, list(details)
    real = runtime.statuses

    def statuses() -> dict[str, ServiceStatus]:
        if left and real():
            return {WEB.name: ServiceStatus(WEB.name, False, None, 0.0, left.pop(0))}
        return real()

    monkeypatch.setattr(runtime, "statuses", statuses)


def test_what_ran_before_gets_the_retries_of_its_runtime(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(True, "asked"))
    context, recorded, said = make_context()
    do(StopServices(), app.context, context)
    make_it_end_first(app, monkeypatch, "starting", "backoff", "exited", "backoff")
    context.facts.update(recorded)
    undo(StopServices(), app.context, context)
    assert (services.wanted(app.context), said) == ([WEB], [])


def test_a_new_release_does_not(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    make_it_end_first(app, monkeypatch, "backoff")
    with pytest.raises(StepError, match=r"does not stay up \(backoff\)"):
        health.verify(app.context, WEB, make_context()[0])


def test_what_runs_and_should_not_is_ended_with_the_rest(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a `service start` that was killed: visitors may be served by what nobody remembers."""
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(True, "asked"))
    services.set_wanted(app.context, [])
    context, _, _ = make_context()
    do(StopServices(), app.context, context)
    assert app.context.runtime.statuses() == {}


@pytest.mark.parametrize("tolerant", [True, False])
def test_a_scheduler_that_dies_after_the_commit_is_told(quick_folder: Path, tolerant: bool) -> None:
    app = make_app(quick_folder, services={"beat": {"command": ["false"], "kind": "scheduler"}})
    context, _, said = make_context()
    release = Release("r1", "p1", "v1", "c1", "/", "2026-01-01T00:00:00Z", "op1")
    step = StartServices(release, ("scheduler",), tolerant=tolerant)
    if tolerant:
        do(step, app.context, context)
        assert "holdfast service restart beat" in said[0]
        assert [instance.service for instance in services.started(app.context, "op1")] == ["beat"]
    else:
        with pytest.raises(StepError):
            do(step, app.context, context)
    app.close()


def test_a_scheduler_goes_on_after_a_change_beside(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its old one is stopped with the old version, and the new one starts later: it ran before, or it did not."""
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(True, "asked"))
    kinds = {"web": "web", "work": "worker", "beat": "scheduler", "night": "scheduler"}
    app = make_app(
        quick_folder,
        services={name: {"command": ["run"], "kind": kind, "settle_seconds": 0} for name, kind in kinds.items()},
    )
    old = [replace(WEB, name=f"{name}-r1", service=name, kind=kinds[name]) for name in ("web", "work", "beat")]
    services.set_wanted(app.context, old)
    for instance in old:
        app.context.runtime.start(instance)
    context, _, _ = make_context()
    release = Release("r2", "p2", "v2", "c2", "/", "2026-01-01T00:00:00Z", "op1")
    for step in (
        StartServices(release, ("web", "worker")),
        AdoptServices(retire=True),
        AdoptServices(retire=True),
        StartServices(release, ("scheduler",)),
        AdoptServices(),
    ):
        do(step, app.context, context)
    assert {instance.name for instance in services.wanted(app.context)} == {"web-r2", "work-r2", "beat-r2"}
    assert app.context.runtime.statuses().keys() == {"web-r2", "work-r2", "beat-r2"}
    app.close()


def test_a_restart_that_could_not_start_it_again_leaves_it_running(app: App) -> None:
    web = replace(WEB, environment={"DATABASE_PASSWORD": "env:HOLDFAST_TESTS_NOT_THERE"})
    services.set_wanted(app.context, [web])
    with pytest.raises(HoldfastError, match="HOLDFAST_TESTS_NOT_THERE"):
        services.refuse_unstartable(app.context, [])
    assert app.context.runtime.statuses()[web.name].running


# --- a web that leads to a backend ---------------------------------------------------------------------

BACKEND = ServiceInstance(
    name="app-r1", service="app", kind="backend", release="r1", directory="/", command=("work",), environment={}
)
_BOTH = {
    "web": {"command": ["serve"], "health": "/health", "settle_seconds": 0},
    "app": {"command": ["work"], "kind": "backend", "settle_seconds": 0},
    "other": {"command": ["work"], "settle_seconds": 0},
}


@pytest.fixture
def pair(quick_folder: Path) -> Iterator[App]:
    app = make_app(quick_folder, services=_BOTH)
    for instance in (WEB, BACKEND):
        app.context.runtime.start(instance)
    services.set_wanted(app.context, [WEB, BACKEND])
    yield app
    app.close()


def test_a_backend_is_stopped_last_and_started_first() -> None:
    worker = replace(BACKEND, name="other-r1", service="other", kind="worker")
    assert services.ordered([BACKEND, worker, WEB], stopping=True) == [worker, WEB, BACKEND]
    assert services.ordered([worker, WEB, BACKEND], stopping=False) == [BACKEND, WEB, worker]


def test_a_web_is_given_up_as_soon_as_its_backend_ended(pair: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(False, "asked"))
    real = pair.context.runtime.statuses
    monkeypatch.setattr(
        pair.context.runtime,
        "statuses",
        lambda: {**real(), BACKEND.name: ServiceStatus(BACKEND.name, False, None, 0.0, "exited")},
    )
    with pytest.raises(StepError, match=r"service app of release r1: it does not stay up \(exited\)"):
        health.verify(pair.context, WEB, make_context()[0], backends=[BACKEND])


@pytest.mark.parametrize("healthy", [True, False])
def test_a_backend_is_asked_for_by_its_web(pair: App, monkeypatch: pytest.MonkeyPatch, healthy: bool) -> None:
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(healthy, "asked"))
    context, recorded, _ = make_context()
    do(StopServices(), pair.context, context)
    assert recorded["verified"] == ([WEB.name, BACKEND.name] if healthy else [])


def test_one_whose_health_check_fails_was_not_well(pair: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(True, "asked"))
    real = pair.context.runtime.statuses
    ill = ServiceStatus(BACKEND.name, True, 4711, 9.0, "unhealthy", healthy=False)
    monkeypatch.setattr(pair.context.runtime, "statuses", lambda: {**real(), BACKEND.name: ill})
    context, recorded, _ = make_context()
    do(StopServices(), pair.context, context)
    assert recorded["verified"] == [WEB.name]


def test_where_one_of_both_ran_a_release_starts_both(pair: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after another preset was taken, which has a proxy where the application itself had been the web."""
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(True, "asked"))
    services.set_wanted(pair.context, [BACKEND])
    context, _, _ = make_context()
    release = Release("r2", "p2", "v2", "c2", "/", "2026-01-01T00:00:00Z", "op1")
    do(StopServices(), pair.context, context)
    do(StartServices(release, ("backend", "web", "worker")), pair.context, context)
    assert {instance.service for instance in services.started(pair.context, "op1")} == {"web", "app"}


@pytest.mark.parametrize(("action", "left"), [("restart", {"web", "app"}), ("stop", set())])
def test_what_is_done_to_a_backend_is_done_to_its_web(
    pair: App, monkeypatch: pytest.MonkeyPatch, action: Action, left: set[str]
) -> None:
    """It may have looked the address of the one before up once."""
    monkeypatch.setattr(health_request, "answers", lambda *_, **__: health_request.Answer(True, "asked"))
    pids = {name: status.pid for name, status in pair.context.runtime.statuses().items()}
    context, _, _ = make_context()
    do(CommandServices(action, ("app",)), pair.context, context)
    now = {name: status.pid for name, status in pair.context.runtime.statuses().items()}
    assert {instance.service for instance in services.wanted(pair.context)} == left
    assert not set(now.items()) & set(pids.items())


def test_a_stop_that_had_to_kill_is_noted(app: App) -> None:
    runtime = app.context.runtime
    assert isinstance(runtime, FakeRuntime)
    runtime.killed_after[WEB.name] = 30
    context, recorded, said = make_context()
    do(StopServices(), app.context, context)
    assert "service web had to be killed after 30 s" in said[0]
    assert recorded["warnings"] == said


def test_a_restart_on_another_port_that_fails_leads_visitors_where_the_web_is(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own port is somebody else's by then: nobody may be led there."""
    app = make_app(quick_folder, services=SERVICES, gate={"kind": "front", "listen": "127.0.0.1:9"})
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        web = replace(WEB, port=taken)
        services.set_wanted(app.context, [web])
        app.context.runtime.start(web)
        app.context.gate.route("r1", f"127.0.0.1:{taken}")
        context, _, _ = make_context()
        monkeypatch.setattr(service_steps, "verify", lambda *_, **__: (_ for _ in ()).throw(StepError("unwell")))
        with pytest.raises(StepError):
            do(CommandServices("restart", ()), app.context, context)
        undo(CommandServices("restart", ()), app.context, context)
    (now,) = services.wanted(app.context)
    assert now.port != taken
    assert app.context.gate.state().target == f"127.0.0.1:{now.port}"
    app.close()


def test_what_an_open_operation_has_stopped_is_said_to_be_its(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Release("r1", "p1", "v1", "c1", "/", "2026-01-01T00:00:00Z", "op0")
    monkeypatch.setattr(ApplicationContext, "current_release", lambda _: release)
    (missing,) = stopped.stopped(app.context, {})
    assert missing.text == "not running, and should run"
    plan = Plan(kind="upgrade", title="upgrade to v2", steps=(StopServices(),))
    operation = app.journal.begin(plan, command="", configuration={}, user="someone")
    context, _, _ = make_context()
    context.operation = operation
    do(StopServices(), app.context, context)
    (ended,) = stopped.stopped(app.context, app.context.runtime.statuses())
    assert (ended.service, ended.operation, ended.is_open) == ("web", operation, True)
    assert ended.text == "stopped by upgrade to v2"
    app.journal.finish(operation, Outcome.UNDONE)
    (ended,) = stopped.stopped(app.context, app.context.runtime.statuses())
    assert ended.text == "stopped", "nobody is known to have stopped it"


@pytest.mark.parametrize("action", ["start", "restart"])
def test_nothing_is_started_while_a_database_cannot_be_reached(
    app: App, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that needs it would only fail at the end of its time, and the undo would be stuck."""
    advice = "Run `docker compose up --detach db`."

    def unreachable() -> None:
        raise StepError("service db has no container", next_step=advice)

    monkeypatch.setattr(app.context.databases["main"], "inspect", unreachable)
    monkeypatch.setattr(parts, "require_installed", lambda app: None)
    with pytest.raises(RefusedError, match=r"databases\.main: service db has no container") as refused:
        service.plan(app, action, [])
    assert refused.value.next_step == advice
