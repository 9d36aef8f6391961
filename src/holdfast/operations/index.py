"""The plan of `index rebuild [NAME]`: the application builds its search indices again, while visitors are served."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.application.application import App
from holdfast.config.similar import no_such
from holdfast.errors import RefusedError
from holdfast.model import Plan
from holdfast.operations import parts
from holdfast.steps.indices import RebuildIndices


def plan(app: App, names: Sequence[str]) -> Plan:
    """Return the plan; without names, of every index.

    Raise NotFoundError for an index that is not configured, RefusedError where nothing builds it.
    """
    release = parts.require_installed(app)
    sections = app.loaded.configuration.indices
    for name in names:
        if name not in sections:
            raise no_such("index", name, sections)
    if not sections:
        raise RefusedError("no index is configured", next_step="Add [indices.NAME] with its kind, name and url.")
    chosen = tuple(name for name in sections if name in names or not names)
    for name in chosen:
        if not sections[name].rebuild and app.loaded.configuration.tasks.task("reindex") is None:
            raise RefusedError(
                f"nothing builds the index {name}", next_step=f"Add `rebuild` to [indices.{name}], or tasks.reindex."
            )
    nothing = parts.Datasets((), (), False)
    return Plan(
        kind="index.rebuild",
        title=f"build {', '.join(chosen)} again",
        steps=(
            parts.preflight(app, nothing, reserve=False, stops=False),
            RebuildIndices(release, chosen, fails=True),
        ),
        barrier_paths=(str(app.loaded.state),),
    )
