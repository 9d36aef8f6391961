"""The search indices that may lack changes of their databases, until they are built again.

They are in a file of the state directory and not in facts of a step: an index may stay behind when its server is down
during an undo, and that must be known when the operation is long over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from holdfast.config.load import ResolvedConfig
from holdfast.system import durable


def _file(loaded: ResolvedConfig) -> Path:
    return loaded.state / "stale-indices.json"


def stale(loaded: ResolvedConfig) -> dict[str, str]:
    """Return why each configured index is out of date, by name."""
    path = _file(loaded)
    known = durable.read_json(path, dict[str, str]) if path.exists() else {}
    return {name: why for name, why in known.items() if name in loaded.configuration.indices}


def mark(loaded: ResolvedConfig, names: Collection[str], why: str) -> None:
    """Note indices as out of date, durably. Idempotent."""
    replace(loaded, {**stale(loaded), **dict.fromkeys(names, why)})


def clear(loaded: ResolvedConfig, names: Collection[str]) -> None:
    """Note indices as current. Idempotent."""
    replace(loaded, {name: why for name, why in stale(loaded).items() if name not in names})


def replace(loaded: ResolvedConfig, wanted: Mapping[str, str]) -> None:
    """Note exactly these indices as out of date. Idempotent."""
    if wanted != stale(loaded):
        durable.write_file(_file(loaded), msgspec.json.encode(dict(wanted)))
