"""Records in one canonical form of JSON with a digest of themselves, so that any changed byte is noticed."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import DamagedError, RefusedError
from holdfast.model import JsonObject

_DIGEST = "sha256_of_the_rest"


def canonical(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def sealed(value: Mapping[str, object]) -> bytes:
    """Return canonical JSON that contains the SHA-256 of itself without that key."""
    digest = hashlib.sha256(canonical(value)).hexdigest()
    return canonical({**value, _DIGEST: digest})


@functools.lru_cache(maxsize=64)
def _is_sealed(raw: bytes) -> bool:
    """Return whether text is its own sealed form; one operation reads the same manifests again and again."""
    value = json.loads(raw)
    del value[_DIGEST]
    return sealed(value) == raw


def unseal(path: Path) -> JsonObject:
    """Return the content of a sealed file. Raise DamagedError unless every byte is as it was written."""
    try:
        raw = path.read_bytes()
        value: JsonObject = json.loads(raw)
        del value[_DIGEST]
        intact = _is_sealed(raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    if not intact:
        raise DamagedError(f"{path} is damaged: its digest does not match")
    return value


def check_format(value: Mapping[str, object], path: Path, newest: int) -> None:
    """Raise RefusedError for a record in a format that a newer Holdfast has written."""
    found = value.get("format")
    if not isinstance(found, int) or found > newest:
        raise RefusedError(
            f"{path} has format {found!r}, but this Holdfast knows formats up to {newest}",
            next_step="Install a newer Holdfast to read it.",
        )
