"""The differences of two trees of files: of two backups, or of a backup and the live tree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from holdfast.drivers.protocols.files import Files
from holdfast.model import Entry

_BLOCK_BYTES = 1 << 20

Change = Literal["added", "removed", "changed", "metadata"]
"""What happened to an entry; `changed` is its content, `metadata` its mode, owner, time or attributes alone."""


class Difference(msgspec.Struct, frozen=True):
    """One entry that differs; `before` is None where it was added, `after` where it was removed."""

    change: Change
    before: Entry | None
    after: Entry | None

    @property
    def entry(self) -> Entry:
        """Return the newer one of both."""
        found = self.after or self.before
        assert found is not None
        return found


def _nothing() -> None:
    pass


def differences(
    before: Iterable[Entry], after: Iterable[Entry], live: Files | None = None, check: Callable[[], None] = _nothing
) -> Iterator[Difference]:
    """Yield the differences of two listings that come in the same order.

    With `live`, `after` is a scan of that tree, which has no digests: the content of a file is then read where its
    inode and its times do not prove that it is the same.
    """
    older, newer = iter(before), iter(after)
    one, other = next(older, None), next(newer, None)
    while one is not None or other is not None:
        check()
        if other is None or (one is not None and one.order() < other.order()):
            yield Difference("removed", one, None)
            one = next(older, None)
        elif one is None or other.order() < one.order():
            yield Difference("added", None, other)
            other = next(newer, None)
        else:
            change = compare(one, other, live)
            if change is not None:
                yield Difference(change, one, None if change == "removed" else other)
            one, other = next(older, None), next(newer, None)


def compare(before: Entry, after: Entry, live: Files | None = None) -> Change | None:
    """Return how two entries with the same path differ; None if they do not.

    The time of a directory changes with every entry in it, and is not compared.
    """
    if before.kind != after.kind:
        return "changed"
    if before.kind == "symlink":
        if before.raw_target() != after.raw_target():
            return "changed"
        return "metadata" if before.mtime_ns != after.mtime_ns else None
    if before.kind == "file":
        if before.size != after.size:
            return "changed"
        if live is None:
            if before.sha256 != after.sha256:
                return "changed"
        elif _is_untouched(before, after):
            return None
        elif (found := _read(after, live)) != before.sha256:
            return "changed" if found else "removed"
        if before.mtime_ns != after.mtime_ns:
            return "metadata"
    same = (before.mode, before.uid, before.gid, before.xattrs) == (after.mode, after.uid, after.gid, after.xattrs)
    return None if same else "metadata"


def _is_untouched(before: Entry, after: Entry) -> bool:
    """Return whether a live file is the one that was listed: its ctime cannot be set freely."""
    return not before.recent and (before.inode, before.ctime_ns, before.mtime_ns) == (
        after.inode,
        after.ctime_ns,
        after.mtime_ns,
    )


def _read(entry: Entry, live: Files) -> str:
    """Return the digest of a live file, and complete its entry; an empty text if it vanished."""
    try:
        descriptor = live.open(entry)
    except FileNotFoundError:
        return ""
    digest = hashlib.sha256()
    try:
        live.complete(entry, descriptor)
        while block := os.read(descriptor, _BLOCK_BYTES):
            digest.update(block)
    finally:
        os.close(descriptor)
    return digest.hexdigest()
