"""The plan of `cache rebuild`: the same commit as a new release, whose cache is warmed before visitors reach it."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.application.application import App
from holdfast.model import Plan
from holdfast.operations import parts, upgrade


def plan(app: App) -> Plan:
    """Return the plan of a source upgrade to the release that is running.

    A release has its own cache, so no request sees one that is half warm, and a failure leaves the old one in use.

    Raise RefusedError; nothing is changed.
    """
    current = parts.require_installed(app)
    parts.refuse_without_task(app, "warm_cache")
    found = upgrade.plan(app, current.commit, mode="source", again=True, label=current.label)
    return replace(
        found,
        kind="cache.rebuild",
        title=f"rebuild the cache of {current.label}",
        notes=(*found.notes, "Code and data stay as they are; the release gets a new folder."),
    )
