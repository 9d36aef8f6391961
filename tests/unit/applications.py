"""An application put together from fakes, for steps and plans that need no process and no engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from holdfast.application.application import App
from holdfast.application.context import ApplicationContext
from holdfast.config.load import ResolvedConfig
from holdfast.config.schema import Configuration
from holdfast.config.validation import validate
from holdfast.engine.handlers import StepContext
from holdfast.engine.journal import Journal
from holdfast.engine.observer import SilentObserver
from holdfast.engine.runner import Runner
from holdfast.model import Backup, CommitFacts, Facts, PlanParameters
from holdfast.steps.typed import AnyStep, handler
from holdfast.system.host import Host
from tests.fakes import FakeDatabase, FakeFiles, FakeGate, FakePackages, FakeRuntime, MemoryVault


def make_app(folder: Path, **sections: Any) -> App:
    """Database `main`, files `media`, vault `local`; `sections` are merged into the configuration."""
    configuration = validate(
        {
            "application": {"name": "guestbook", "state": str(folder / "state")},
            "databases": {"main": {"kind": "sqlite", "path": "shared/app.sqlite3"}},
            "files": {"media": {"path": "shared/media"}},
            "vaults": {"local": {"path": str(folder / "vault")}},
            **sections,
        },
        Configuration,
    )
    host = Host()
    journal = Journal(folder / "state")
    runtime = FakeRuntime()
    application = ApplicationContext(
        loaded=ResolvedConfig(configuration, folder),
        host=host,
        journal=journal,
        runtime=runtime,
        gate_runtime=runtime,
        databases={"main": FakeDatabase()},
        files={"media": FakeFiles(folder / "shared" / "media")},
        vault=MemoryVault(),
        gate=FakeGate(),
        packages=FakePackages(folder / "packages", {}, {}),
    )
    return App(application, Runner(journal, {}, host, SilentObserver()), "test")


def make_context(
    earlier: Mapping[str, Facts] | None = None, parameters: Mapping[str, Any] | None = None
) -> tuple[StepContext, Facts, list[str]]:
    """A step's context, with what it records and what it says."""
    recorded: Facts = {}
    said: list[str] = []
    context = StepContext(
        operation="op1",
        parameters=parameters or {},
        facts={},
        earlier=earlier or {},
        record=recorded.update,
        check_cancelled=lambda: None,
        progress=lambda done, total, unit: None,
        say=said.append,
        commit_facts=CommitFacts(),
        plan_parameters=PlanParameters(),
    )
    return context, recorded, said


def do(step: AnyStep, application: ApplicationContext, context: StepContext) -> None:
    """Do a step as the runner does, with parameters as the journal keeps them."""
    handler(type(step), application).do(replace(context, parameters=step.parameters))


def undo(step: AnyStep, application: ApplicationContext, context: StepContext) -> None:
    act = handler(type(step), application).undo
    assert act is not None
    act(replace(context, parameters=step.parameters))


def make_backup(number: int, created_at: str, *, pinned: bool = False, datasets: tuple[str, ...] = ()) -> Backup:
    return Backup(
        id=f"set-{number}",
        sequence=number,
        created_at=created_at,
        instant=created_at,
        consistency="pause",
        application="guestbook",
        environment="production",
        operation=f"op-{number}",
        release={},
        datasets={name: {} for name in datasets},
        packs=[],
        holdfast_version="0",
        size_bytes=0,
        new_bytes=0,
        pinned=pinned,
    )
