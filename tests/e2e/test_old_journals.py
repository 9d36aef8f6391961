"""Today's journal of an operation has, step by step, every key that an earlier version kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import journals
from tests.memory import make_folder, remove_folder
from tests.site import Site

# An import compares migrations in the candidate database since, and in the live one only where that is not possible.
_NO_MORE = {("import_database", "migrations.check")}
# Rows are compared right after the migration since, and not after the cache is warm.
_MOVED = {"guard.compare"}

Told = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    folder = make_folder()
    site, other = Site(folder / "site"), Site(folder / "other")
    # An upgrade makes a whole backup before the window since only if there is no recent one.
    site.config.write_text(site.config.read_text() + '\n[upgrade]\nrecent_backup = "0h"\n')
    try:
        yield dict(journals.told(site, other))
    finally:
        site.remove()
        other.remove()
        remove_folder(folder)


@pytest.mark.parametrize("name", [*journals.STORY, *journals.OF_OTHER])
def test_the_journal_has_every_key_that_it_had(told: Told, name: str) -> None:
    earlier = journals.recorded(name)
    assert told[name]["outcome"] == earlier["outcome"]
    for kind in ("parameters", "commit_facts"):
        kept = {key: value for key, value in earlier[kind].items() if value is not None}
        assert _keys(kept) <= _keys(told[name][kind])
    left = iter(told[name]["steps"])
    for before in earlier["steps"]:
        if (name, before["name"]) in _NO_MORE:
            continue
        searched = told[name]["steps"] if before["name"] in _MOVED else left
        now = next((step for step in searched if step["name"] == before["name"]), None)
        assert now is not None, f"{before['name']} is missing, or its place has changed"
        assert (now["after_commit"], now["state"]) == (before["after_commit"], before["state"]), before["name"]
        for kind in ("parameters", "facts"):
            assert _keys(before[kind]) <= _keys(now[kind]), before["name"]


def _keys(value: Any, path: str = "") -> set[str]:
    """Return the paths of all keys. Those of a list are the keys of its items."""
    if isinstance(value, list):
        return {key for item in value for key in _keys(item, f"{path}[]")}
    if not isinstance(value, dict):
        return set()
    return {found for key, item in value.items() for found in ({f"{path}.{key}"} | _keys(item, f"{path}.{key}"))}
