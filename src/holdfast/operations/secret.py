"""The plans of `secret apply` and `secret remove`."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.application.application import App
from holdfast.config.secret_references import keys_of
from holdfast.config.similar import no_such
from holdfast.errors import RefusedError
from holdfast.model import Plan, PlannedStep
from holdfast.steps import secrets
from holdfast.steps.gate import CloseGate, OpenGate
from holdfast.steps.secrets import StartUsers, StopUsers, SwitchSecrets
from holdfast.steps.services import WEB


def plan_apply(app: App, names: Sequence[str] = ()) -> Plan:
    """Return the plan that puts pending values in use: all, or those of these names.

    Raise NotFoundError, or RefusedError where nothing is pending or a value cannot be decrypted.
    """
    store = secrets.store_of(app.context)
    pending, ready = store.pending(), store.ready()
    for name in names:
        if name not in pending:
            raise no_such("pending secret", name, pending)
    wanted = tuple(names or pending)
    if not wanted:
        raise RefusedError("no secret is pending", next_step="Run: holdfast secret set NAME")
    # What it is to go back to must be readable too.
    changed = [name for name in wanted if name not in ready or store.pending_value(name) != store.value(name)]
    users = secrets.users_of(app.context, changed)
    services = tuple(dict.fromkeys(item.service for item in users))
    held = any(item.kind in WEB for item in users) and app.loaded.configuration.gate.kind != "none"
    steps: list[PlannedStep] = [
        *([CloseGate("secrets are changed")] if held else []),
        *([StopUsers(services)] if services else []),
        SwitchSecrets(wanted),
        *([StartUsers(services)] if services else []),
    ]
    notes = [f"Restarted: {', '.join(services)}." if services else "No running service uses a changed value."]
    if held:
        notes.append("Visitors see the maintenance page until the web has started again.")
    return Plan(
        kind="secret.apply",
        title=f"secret apply {' '.join(wanted)}",
        steps=tuple(steps),
        after_commit=(OpenGate(),) if held else (),
        notes=tuple(notes),
        barrier_paths=(str(app.loaded.state), str(app.loaded.root)),
    )


def plan_remove(app: App, names: Sequence[str]) -> Plan:
    """Return the plan that forgets secrets. Raise NotFoundError, or RefusedError where the configuration uses one."""
    store = secrets.store_of(app.context)
    known = {**store.ready(), **store.pending()}
    for name in names:
        if name not in known:
            raise no_such("secret", name, known)
        if keys := keys_of(app.loaded.configuration, name):
            raise RefusedError(
                f"secret {name} is used by {', '.join(keys)}",
                next_step="Remove it from the configuration first; a running service keeps it until it restarts.",
            )
    return Plan(
        kind="secret.remove",
        title=f"secret remove {' '.join(names)}",
        steps=(SwitchSecrets((), tuple(names)),),
        notes=(f"The values of {', '.join(names)} are lost, unless a backup of the configuration has them.",),
        barrier_paths=(str(app.loaded.state), str(app.loaded.root)),
    )
