"""The plan of `adopt`, which takes over a project whose containers are already running."""

from __future__ import annotations

from holdfast.application.application import App
from holdfast.errors import RefusedError
from holdfast.model import Plan, PlannedStep
from holdfast.operations import parts
from holdfast.steps.adopt import AdoptContainers
from holdfast.steps.gate import CloseGate, OpenGate
from holdfast.steps.service_steps import AdoptServices, StartServices, StopServices
from holdfast.steps.services import BEHIND, WEB


def plan(app: App, reference: str = "HEAD") -> Plan:
    """Return the plan of an adoption.

    Raise RefusedError where a release is installed, services are not containers, or a database does not exist.
    """
    current = app.context.current_release()
    if current is not None:
        raise RefusedError(f"{current.label} is already installed here", next_step="Run: holdfast status")
    if not app.context.runtime.takes_over:
        raise RefusedError("only containers can be taken over", next_step="Run: holdfast install REF")
    commit, label = parts.resolve(app, reference)
    if reference == "HEAD":
        label = commit[:12]  # the name would soon mean another commit
    release = parts.new_release(app, f"{label}-{commit[:12]}", label, commit)
    datasets = parts.require_existing(app, parts.choose(app))
    steps: list[PlannedStep] = [
        parts.preflight(app, datasets, reserve=False, taken_over=False),
        AdoptContainers(release),
    ]
    notes = [f"The running containers are recorded as {label} ({commit[:12]}). Their images are kept from now on."]
    if app.loaded.configuration.gate.kind == "none":
        after: tuple[PlannedStep, ...] = ()
    else:
        # The front may need the port that the web has now, so the web is stopped first.
        closing: list[PlannedStep] = [StopServices(), CloseGate("Holdfast takes over")]
        if app.context.proxy is not None:
            closing.reverse()  # nothing is stopped if the proxy does not obey
        steps += [
            *closing,
            StartServices(release, (*WEB, *BEHIND), during="adopt"),
        ]
        after = (AdoptServices(), OpenGate())
        notes.append("The services are started again, with the web behind the gate. Visitors wait for some seconds.")
    return Plan(
        kind="adopt",
        title=f"take over {label}",
        steps=tuple(steps),
        after_commit=after,
        notes=tuple(notes),
        parameters=parts.parameters(app, release),
        barrier_paths=tuple(app.context.barrier_paths()),
    )
