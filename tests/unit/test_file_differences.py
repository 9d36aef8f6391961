"""Differences of trees, and the versions of a file in backups, on every small case."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.application.file_differences import differences
from holdfast.model import Backup, Entry
from holdfast.reports import backup_files
from tests.contract.memory_vault import MemoryVault
from tests.unit.test_entries import tree_of

_QUICK = settings(max_examples=60, deadline=None)
_FACTS = st.tuples(st.sampled_from(["x", "y"]), st.sampled_from(["644", "600"]), st.sampled_from([1, 2]))
_TREES = st.dictionaries(st.sampled_from([b"a", b"a-b", b"a/b", b"c/d", b"c/e", b"f"]), _FACTS, max_size=5)
Tree = dict[bytes, tuple[str, str, int]]


def listed(tree: Tree) -> list[Entry]:
    """Entries of files, and of the directories above them; a file that is above others is a directory."""
    found = []
    for path in tree_of(list(tree)):
        if path in tree and not any(other.startswith(path + b"/") for other in tree):
            content, mode, time = tree[path]
            found.append(Entry(path.decode(), "file", mode, 0, 0, time, 1, sha256=content))
        else:
            found.append(Entry(path.decode(), "directory", "755", 0, 0, 0))
    return found


@given(before=_TREES, after=_TREES)
@_QUICK
def test_differences_are_those_of_both_trees(before: Tree, after: Tree) -> None:
    old, new = ({entry.path: entry for entry in listed(tree)} for tree in (before, after))
    expected = {}
    for path in old.keys() | new.keys():
        if path not in new:
            expected[path] = "removed"
        elif path not in old:
            expected[path] = "added"
        elif (old[path].kind, old[path].sha256) != (new[path].kind, new[path].sha256):
            expected[path] = "changed"
        elif old[path] != new[path]:
            expected[path] = "metadata"
    found = list(differences(listed(before), listed(after)))
    assert {difference.entry.path: difference.change for difference in found} == expected
    assert [difference.entry.order() for difference in found] == sorted(one.entry.order() for one in found)
    assert list(differences(listed(before), listed(before))) == []


def vault_with(several: list[Tree]) -> MemoryVault:
    vault = MemoryVault()
    for number, tree in enumerate(several, 1):
        run = vault.begin(f"run{number}")
        run.listings["media"] = listed(tree)
        run.finish(
            Backup(
                id=f"b{number}",
                sequence=number,
                created_at="",
                instant="",
                consistency="live",
                application="",
                environment="",
                operation=run.id,
                release={},
                datasets={"media": {"kind": "files"}},
                packs=[],
                holdfast_version="",
                size_bytes=0,
                new_bytes=0,
            )
        )
        vault.publish(run.id)
    return vault


def reader_of(vault: MemoryVault) -> backup_files.BackupReader:
    reader = cast(Any, backup_files.BackupReader.__new__(backup_files.BackupReader))
    reader.vault, reader.loaded = vault, SimpleNamespace()
    return cast(backup_files.BackupReader, reader)


@given(several=st.lists(_TREES, max_size=4), joined=st.booleans())
@_QUICK
def test_each_version_of_a_file_is_found_newest_first(several: list[Tree], joined: bool) -> None:
    vault = vault_with(several)
    old_first = [{entry.path: entry for entry in listed(tree)} for tree in several]
    found = {
        one.versions[0].entry.path: one.versions for one in backup_files.found(reader_of(vault), "*", each=not joined)
    }
    assert found.keys() == {path for tree in old_first for path in tree}
    for path, versions in found.items():
        expected = []
        for number, tree in enumerate(old_first, 1):
            if path not in tree:
                continue
            older = old_first[number - 2].get(path) if number > 1 else None
            changes = list(differences([older], [tree[path]])) if older is not None else None
            state = "new" if changes is None else changes[0].change if changes else "same"
            if joined and state == "same":
                expected[0] = (f"b{number}", expected[0][1], expected[0][2] + 1)
            else:
                expected.insert(0, (f"b{number}", state, 1))
        assert [(one.backup.id, one.state, one.backups) for one in versions] == expected


def test_equal_listings_are_read_once_and_count_each() -> None:
    vault = vault_with([{b"a": ("x", "644", 1)}] * 3 + [{b"a": ("y", "644", 1)}] * 2)
    for id, run in vault.sets.items():
        assert run.manifest is not None
        digest = "one" if id < "b4" else "two"
        run.manifest.files = {"files.media.jsonl.zst": {"size_bytes": 1, "sha256": digest}}
    opened: list[str] = []
    reader = cast(Any, reader_of(vault))
    reader.open = lambda backup: opened.append(backup.id) or vault.open_set(backup.id, ())
    [found] = backup_files.found(reader, "a")
    assert [(one.backup.id, one.state, one.backups) for one in found.versions] == [
        ("b5", "changed", 2),
        ("b3", "new", 3),
    ]
    assert sorted(opened) == ["b3", "b5"]
