"""What `status` says while an operation runs, and of the health of services."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.application.application import App
from holdfast.config.schema import Service
from holdfast.model import Outcome, Plan, ServiceInstance, ServiceStatus, StepState
from holdfast.reports import health
from holdfast.reports.status import report
from holdfast.steps import services
from tests.fakes import Step
from tests.unit.applications import make_app


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    made = make_app(quick_folder, services={"web": {"command": ["x"], "health": "/health"}})
    yield made
    made.close()


def lines_of(app: App) -> dict[str, str]:
    return dict(report(app).lines)


def test_a_running_operation_has_its_title_once_its_step_and_its_progress(app: App) -> None:
    steps = tuple(Step(name, f"do {name}") for name in ("a", "b", "c", "d"))
    operation = app.journal.begin(
        Plan(kind="upgrade", title="upgrade to v2", steps=steps), command="", configuration={}, user=""
    )
    assert "step" not in lines_of(app)
    app.journal.step(operation, 0, StepState.DONE, seconds=1)
    app.journal.step(operation, 1, StepState.DOING)
    found = lines_of(app)
    assert found["operation"].startswith("upgrade to v2: running (process ")
    assert (found["step"], found["progress"]) == ("2 of 4: do b", "25 %")
    app.journal.step(operation, 1, StepState.FAILED, error="no", seconds=1)
    app.journal.step(operation, 1, StepState.UNDOING)
    assert lines_of(app)["step"] == "2 of 4: undo of do b"
    (data,) = report(app).data["operations"]  # type: ignore[misc]
    assert data["step"] == {"position": 2, "total": 4, "title": "do b", "undo": True, "percent": 25}


def test_the_progress_is_by_the_usual_times(app: App) -> None:
    steps = tuple(Step(name, name) for name in ("long", "short"))
    plan = Plan(kind="upgrade", title="upgrade", steps=steps)
    for outcome in (Outcome.COMMITTED, Outcome.OPEN):
        operation = app.journal.begin(plan, command="", configuration={}, user="")
        app.journal.step(operation, 0, StepState.DONE, seconds=90)
        app.journal.step(operation, 1, StepState.DONE, seconds=10)
        if outcome is Outcome.COMMITTED:
            app.journal.finish(operation, outcome)
    app.journal.step(operation, 1, StepState.DOING)
    assert lines_of(app)["progress"] == "90 %"


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"hello", False),
        (b"", False),
    ],
)
def test_the_health_of_a_web_is_what_it_answers(
    answer: bytes, healthy: bool, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        instance = ServiceInstance("web-r1", "web", "web", "r1", "/r", ("x",), {}, port=server.getsockname()[1])
        monkeypatch.setattr(services, "wanted", lambda application: [instance])

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        status = ServiceStatus("web-r1", running=True, pid=1, uptime_seconds=5.0, detail="running")
        found = health.with_health(app, {"web-r1": status, "front": status})
        thread.join()
    assert (found["web-r1"].healthy, found["front"].healthy) == (healthy, None)
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")


def test_a_web_that_listens_nowhere_is_not_healthy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert not health._answers(taken.getsockname()[1], Service(command=["x"], health="/"))
