"""What to look at and what to type after a success, for a person on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.application.application import App
    from holdfast.engine.runner import Result
    from holdfast.model import Plan

_DATA = ("backup.restore", "import.database", "import.files", "clone")
_CODE = ("install", "adopt", "upgrade", "rollback", *_DATA)


def after(app: App, plan: Plan, result: Result) -> list[tuple[str, str]]:
    """Return pairs of a heading, and a place or a command."""
    found: list[tuple[str, str]] = []
    if plan.kind in _CODE and (site := site_of(app)):
        found.append(("site", site))
    made = result.facts.get("set_id")
    if made:
        what = "backup" if plan.kind == "backup.create" else "data before"
        found.append((what, _place(app, str(made))))
    if plan.kind == "backup.create":
        found += [("look", f"holdfast backup show {made}"), ("go back", f"holdfast backup restore {made} --dry-run")]
    elif plan.kind in _DATA:
        found.append(("go back", f"holdfast backup restore {made} --dry-run" if made else ""))
    elif plan.kind in ("upgrade", "rollback"):
        found.append(("go back", "holdfast rollback --dry-run"))
    elif plan.kind in ("install", "adopt"):
        found.append(("next", "holdfast backup create"))
    elif plan.kind == "package.build":
        found.append(("next", f"holdfast package deploy {result.facts.get('package', '')}"))
    elif plan.kind == "service.stop":
        found.append(("start", "holdfast service start"))
    elif plan.kind.startswith("maintenance") and app.context.gate.state().hold is not None:
        found.append(("let in", "holdfast maintenance off"))
    return [(heading, text) for heading, text in found if text]


def site_of(app: App) -> str:
    """Return the address at which visitors reach the application; empty if Holdfast does not know it."""
    gate = app.loaded.configuration.gate
    if gate.kind == "front":
        host, _, port = gate.listen.rpartition(":")
        return f"http://{'127.0.0.1' if host in ('', '0.0.0.0', '[::]', '*') else host}:{port}/"
    return gate.check_url


def _place(app: App, backup: str) -> str:
    """Return where a backup is kept."""
    for vault in app.loaded.configuration.vaults.values():
        return str(Path(app.loaded.path(vault.path)) / "backups" / backup)
    return backup
