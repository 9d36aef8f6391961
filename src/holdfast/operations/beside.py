"""The start of a release next to the old one, which upgrades, rollbacks, patches and a rebuilt cache have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from holdfast.application.application import App
from holdfast.model import PlannedStep, Release
from holdfast.operations import parts
from holdfast.steps import services
from holdfast.steps.backup import UnpinBackup
from holdfast.steps.gate import CloseGate, OpenGate
from holdfast.steps.release import PruneReleases, SwitchRelease
from holdfast.steps.service_steps import AdoptServices, StartServices, StopServices
from holdfast.steps.services import BEHIND, WEB


def kinds(app: App) -> tuple[str, ...]:
    """Return the kinds of services that can start next to the old ones; none where that is not possible.

    A web reaches its backend by itself. Two versions of both need two addresses, such as a socket in each release: both
    commands name the release then.
    """
    configuration = app.loaded.configuration
    if configuration.gate.kind == "none":
        return ()
    named = {
        name: any("{release}" in word for word in service.command)
        for name, service in configuration.running_services().items()
        if configuration.service_kind(name) in WEB
    }
    running = [instance for instance in services.wanted(app.context) if instance.kind in WEB]
    found = {*(configuration.service_kind(name) for name in named), *(instance.kind for instance in running)}
    if "backend" not in found:
        return ("web", "worker")
    alone = all(any(instance.directory in word for word in instance.command) for instance in running)
    possible = app.context.containers is None and all(named.values()) and alone
    return (*WEB, "worker") if possible else ()


def divided(app: App) -> bool | None:
    """Return True if some workers cannot run next to the old ones, so that the others are started before the commit."""
    configuration = app.loaded.configuration
    alone = [
        service
        for name, service in configuration.services.items()
        if not service.beside or configuration.service_kind(name) == "websocket"
    ]
    return True if alone else None


def switching(
    app: App, release: Release, making: Sequence[PlannedStep], during: Literal["upgrade", "rollback"]
) -> tuple[list[PlannedStep], list[PlannedStep]]:
    """Return the steps that change only the code: next to the old services where possible, else behind the page.

    `making` creates the release.
    """
    possible = kinds(app)
    if possible and any(item.kind == "web" for item in services.wanted(app.context)):
        return [*making, StartServices(release, possible, during=during, beside=divided(app))], after(app, release)
    steps: list[PlannedStep] = [
        *making,
        *parts.prepare(app, release),
        CloseGate(f"{during} to {release.label}"),
        StopServices(keeps=True),
        SwitchRelease(release),
        *parts.start_all(app, release),
    ]
    return steps, [AdoptServices(), OpenGate(), *parts.remove_stopped(app), PruneReleases()]


def after(app: App, release: Release) -> list[PlannedStep]:
    """Return the closing steps of every change that started new services next to the old ones."""
    late = ("scheduler",) if divided(app) is None else BEHIND
    return [
        SwitchRelease(release),
        OpenGate(drains=True),
        AdoptServices(retire=True),
        StartServices(release, late, tolerant=True, beside=None if divided(app) is None else False),
        AdoptServices(),
        UnpinBackup(),
        PruneReleases(),
    ]
