"""The vault's record of damage that `backup verify` found, so that no later backup relies on it.

A content is trusted by its name, which is its digest. Once its bytes are known to differ, it is read again from the
application and written again, which repairs older backups that name it too.
"""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path

import msgspec

from holdfast.system import durable

_FILE = "damaged.json"


class Damage(msgspec.Struct, frozen=True):
    """The names of packs and digests of objects whose bytes do not match their names."""

    packs: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()


def read_damage(vault: Path) -> Damage:
    """Return the record; an unreadable one counts as empty, because `verify` writes it again."""
    try:
        value = json.loads((vault / _FILE).read_bytes())
        return Damage(frozenset(map(str, value["packs"])), frozenset(map(str, value["objects"])))
    except (OSError, ValueError, KeyError, TypeError):
        return Damage()


def write_damage(vault: Path, damage: Damage) -> None:
    """Make the record durable; write nothing if it is unchanged."""
    if damage == read_damage(vault):
        return
    if damage == Damage():
        durable.unlink(vault / _FILE)
        return
    value = {"packs": sorted(damage.packs), "objects": sorted(damage.objects)}
    durable.write_file(vault / _FILE, json.dumps(value))


def forget(vault: Path, packs: Set[str] = frozenset(), objects: Set[str] = frozenset()) -> None:
    """Remove contents that were written again from the record."""
    known = read_damage(vault)
    write_damage(vault, Damage(known.packs - packs, known.objects - objects))
