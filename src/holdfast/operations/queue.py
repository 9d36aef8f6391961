"""The queues of an application, opened for `holdfast queue`, and the checks before one is changed."""

from __future__ import annotations

from holdfast.application.application import App
from holdfast.config.similar import no_such
from holdfast.drivers.protocols.databases import Changeable
from holdfast.drivers.protocols.queues import Queues, QueueState
from holdfast.drivers.queues.factory import open_queues
from holdfast.errors import NotFoundError, RefusedError


def opened(app: App, broker: str | None) -> dict[str, Queues]:
    """Return the configured brokers, or the one of that name. Raise NotFoundError or RefusedError."""
    configured = app.loaded.configuration.queues
    if broker is not None and broker not in configured:
        raise no_such("section of queues", broker, configured)
    if not configured:
        raise NotFoundError("no queues are configured", next_step="Add [queues.NAME]; see: holdfast config help queues")
    found = {}
    for name, section in configured.items():
        if broker in (None, name):
            database = app.context.databases.get(section.database)
            found[name] = open_queues(section, database if isinstance(database, Changeable) else None, app.context.host)
    return found


def chosen(app: App, broker: str | None, queue: str) -> tuple[Queues, QueueState]:
    """Return the broker that has a queue, and the state of it. Raise NotFoundError or RefusedError."""
    known: list[str] = []
    hits = []
    for queues in opened(app, broker).values():
        for state in queues.states():
            known.append(state.name)
            if state.name == queue:
                hits.append((queues, state))
    if not hits:
        raise no_such("queue", queue, known)
    if len(hits) > 1:
        raise RefusedError(f"several brokers have a queue {queue}", next_step="Choose one with --broker.")
    return hits[0]
