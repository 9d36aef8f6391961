"""The steps of the hooks that the application has. Nothing runs here."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.application.application import App
from holdfast.config.schema import HookName
from holdfast.model import PlannedStep, Release
from holdfast.steps.hooks import NoteHook, RunHook
from holdfast.steps.release import BuildPackage


def hook(app: App, name: HookName, release: Release | None = None) -> list[PlannedStep]:
    """Return the step of a hook; none if it is not configured. `release`: where it runs, if not in the current one."""
    return [RunHook(name, release)] if app.loaded.configuration.hooks.hook(name) is not None else []


def for_failure(app: App, *names: HookName) -> list[PlannedStep]:
    """Return the steps whose undo runs these hooks and, after them, `on_failure`.

    They come before every step that changes something, so that their undo is the last one.
    """
    configured = app.loaded.configuration.hooks
    noted: tuple[HookName, ...] = ("on_failure", *names)
    return [NoteHook(name) for name in noted if configured.hook(name) is not None]


def around_build(app: App, steps: Iterable[PlannedStep]) -> list[PlannedStep]:
    """Return steps with the hooks around the one that builds a package, if there is one."""
    found: list[PlannedStep] = []
    for step in steps:
        if step.name == BuildPackage.name:
            found += [*hook(app, "before_build"), step, *hook(app, "after_build")]
        else:
            found.append(step)
    return found
