"""The report of `index list`: what the search servers say of each index, and whether it is out of date."""

from __future__ import annotations

import msgspec

from holdfast.application import stale_indices
from holdfast.application.application import App
from holdfast.errors import HoldfastError
from holdfast.model import Problem


class IndexReport(msgspec.Struct, frozen=True):
    name: str
    content: str
    state: str
    documents: int | None
    size_bytes: int | None


def report(app: App) -> list[IndexReport]:
    """Return one entry for each configured index; a server that does not answer is one, too."""
    stale = stale_indices.stale(app.loaded)
    found = []
    for name, index in app.context.indices.items():
        try:
            facts = index.inspect()
            rows = sum(table["rows"] for table in index.tables().values()) if facts["exists"] else None
        except HoldfastError as error:
            found.append(IndexReport(name, index.content, error.what, None, None))
            continue
        state = f"out of date: {stale[name]}" if name in stale else "current" if facts["exists"] else "missing"
        found.append(IndexReport(name, index.content, state, rows, facts["size_bytes"]))
    return found


def problems(app: App) -> list[Problem]:
    """Return what an operator should know of the indices."""
    found = [problem for index in app.context.indices.values() for problem in index.check()]
    for name, why in stale_indices.stale(app.loaded).items():
        advice = f"Run: holdfast index rebuild {name}"
        found.append(Problem(f"indices.{name}", "warning", f"the index is out of date: {why}", advice))
    return found
