"""Rules that the entries of a listing obey: checked when a backup is verified, and again before it is restored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast.errors import DamagedError
from holdfast.model import Entry


def inside(wanted: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of a listing, each proven to lie below the root in a directory that the listing itself names.

    So none can climb out, or be written through a link that comes earlier. Raise DamagedError.
    """
    parents: list[bytes] = []
    for entry in wanted:
        path = entry.raw_path()
        while parents and not path.startswith(parents[-1] + b"/"):
            parents.pop()
        above, _, name = path.rpartition(b"/")
        climbs = name in (b"", b".", b"..") or b"\0" in name or path.startswith(b"/")
        if climbs or above != (parents[-1] if parents else b""):
            raise DamagedError(f"a listing names {entry.path!r}, which is not in a directory of that listing")
        if entry.kind not in ("file", "directory", "symlink", "fifo"):
            raise DamagedError(f"a listing names {entry.path!r} of the unknown kind {entry.kind!r}")
        if entry.kind == "directory":
            parents.append(path)
        yield entry
