"""Files with patches, as an operator or a repository has them."""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import NotFoundError, RefusedError

_MOST_BYTES = 8 << 20


def read(path: Path) -> bytes:
    """Return the text of a patch file. Raise NotFoundError, or RefusedError for one that is too large."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise RefusedError(f"{path} is larger than {_MOST_BYTES >> 20} MiB")
    return text
