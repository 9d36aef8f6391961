"""The story of one site, operation by operation, and what the journal keeps of each.

Its records by an earlier version of Holdfast are in tests/fixtures/journals. The module uses only what the tests of
that version have, too, so that the same story can be told there.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import OperationFailedError
from holdfast.operations import restore, service
from tests.faults.scenarios import SCENARIOS
from tests.site import Site

FOLDER = Path(__file__).parent / "fixtures" / "journals"
_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
_STAMP = re.compile(r"\d{8}-\d{6}")
_OPERATION_SUFFIX = re.compile(r"(?<=\d{8}-\d{6})(-[a-z-]+)-[0-9a-f]{4}\b")


def _act(name: str) -> Callable[[Site], None]:
    return _BY_NAME[name].act


def _after(prepare: Callable[[Site], None] | None, act: Callable[[Site], None]) -> Callable[[Site], None]:
    def both(site: Site) -> None:
        assert prepare is not None
        prepare(site)
        act(site)

    return both


def _serve(action: str, *names: str) -> Callable[[Site], None]:
    def act(site: Site) -> None:
        app = site.open()
        try:
            app.run(service.plan(app, action, names))
        finally:
            app.close()

    return act


def _restore_into(site: Site) -> None:
    app = site.open()
    try:
        app.run(restore.plan_into(app, "latest", str(site.folder / "looked-at.sqlite3"), only=["main"]))
    finally:
        app.close()


def _rolling_that_fails(site: Site) -> None:
    """Migrate while the old version serves, then fail: the migration stays."""
    text = site.config.read_text()
    site.config.write_text(text.replace('warm_cache = ["python3", "manage.py", "warm"]', 'warm_cache = ["false"]'))
    try:
        _act("rolling")(site)
    finally:
        site.config.write_text(text)


STORY: Mapping[str, Callable[[Site], None]] = {
    "install": _act("install"),
    "package_build": _act("package_build"),
    "maintenance_on": _act("maintenance_on"),
    "maintenance_off": lambda site: site.operate("maintenance", on=False),
    "service_restart": _serve("restart", "web"),
    "service_stop": _serve("stop", "web"),
    "service_start": _serve("start", "web"),
    "backup_pause": _act("backup_pause"),
    "backup_quiesce": _act("backup_quiesce"),
    "upgrade": _act("upgrade"),
    "rollback_with_data": _act("rollback_with_data"),
    "upgrade_without_backup": _act("upgrade_without_backup"),
    "upgrade_that_fails": _act("upgrade_that_fails"),
    "upgrade_that_answers_500": _act("upgrade_that_answers_500"),
    "import_database": _after(_BY_NAME["import_database"].before, _act("import_database")),
    "import_files": _after(_BY_NAME["import_files"].before, _act("import_files")),
    "upgrade_with_a_migration": lambda site: site.operate("upgrade", "v5"),
    "rolling_that_fails": _rolling_that_fails,
    "rolling": _act("rolling"),
    "source": _act("source"),
    "rollback_code_only": _act("rollback_code_only"),
    "restore": _after(_act("backup_pause"), lambda site: site.operate("restore", "latest")),
    "restore_without_safety": lambda site: site.operate("restore", "latest", safety=False),
    "restore_into": _restore_into,
    "export": _act("export"),
    "prune": _act("prune"),
}
"""Operations on one site in their order, by the names of their records."""
OF_OTHER: Mapping[str, Callable[[Site], None]] = {
    "clone": _act("clone"),
    "install_on_wiped_data": lambda site: site.operate("install", "v1", wipe=True),
}
"""Operations on another site, which is not a production environment."""


def told(site: Site, other: Site) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the record of each operation of the story; then those of the other site."""
    for name, act in STORY.items():
        with contextlib.suppress(OperationFailedError):
            act(site)
        yield name, newest(site)
    site.shut_down()
    _BY_NAME["clone"].prepare(other)
    for name, act in OF_OTHER.items():
        act(other)
        yield name, newest(other)


def newest(site: Site) -> dict[str, Any]:
    """Return the newest operation as the journal keeps it, without what differs on each machine."""
    app = site.open()
    try:
        (record,) = app.journal.operations(1)
        steps = [
            {
                "name": step.name,
                "after_commit": step.after_commit,
                "state": str(step.state),
                "parameters": step.parameters,
                "facts": step.facts,
            }
            for step in app.journal.steps(record.id)
        ]
    finally:
        app.close()
    operation = {
        "parameters": record.plan["parameters"],
        "commit_facts": record.commit_facts,
        "outcome": str(record.outcome),
        "steps": steps,
    }
    text = json.dumps(operation).replace(str(site.folder), "/site")
    text = _OPERATION_SUFFIX.sub(r"\1-0000", text)
    found: dict[str, Any] = json.loads(_STAMP.sub("20260101-000000", text))
    return found


def recorded(name: str) -> dict[str, Any]:
    """Return an operation as the earlier version wrote it."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def main(folder: str) -> None:
    """Tell the story below a folder, and write the records of its operations."""
    site, other = Site(Path(folder) / "site"), Site(Path(folder) / "other")
    try:
        for name, operation in told(site, other):
            (FOLDER / f"{name}.json").write_text(json.dumps(operation, indent=1) + "\n")
    finally:
        site.remove()
        other.remove()


if __name__ == "__main__":
    main(sys.argv[1])
