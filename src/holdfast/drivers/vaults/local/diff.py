"""A merge of present entries with an earlier listing, both in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from holdfast.model import Changed, Entry


class Merge:
    """An iterator of the present entries, each with whether its content must be read.

    Vanished entries stay in it if they are to be kept. `lost` is true once an entry of the earlier listing vanished or
    has another content; `is_first` where there is no earlier listing, known before the scan begins.
    """

    def __init__(
        self,
        now: Iterator[Entry],
        earlier: Iterator[Entry],
        keep_vanished: bool,
        stored: Callable[[Entry], bool],
        changed: Changed | None = None,
    ) -> None:
        """Let `stored` return whether the content of an earlier entry still exists.

        Where only changed paths were looked at, every other entry of the earlier listing is still there.
        """
        self._stored = stored
        self._changed = changed
        self._now = now
        self._earlier = earlier
        self._keep_vanished = keep_vanished
        self.lost = False
        self.is_first = False
        self._no_folder = b"\0"  # a path that was a directory and is not one any more, with a slash at its end

    def __iter__(self) -> Iterator[tuple[Entry, bool]]:
        before = next(self._earlier, None)
        self.is_first = before is None
        if before is None:
            yield from ((entry, entry.kind == "file") for entry in self._now)
            return
        for entry in self._now:
            while before is not None and not _same_name(before, entry) and before.order() < entry.order():
                yield from self._vanished(before)
                before = next(self._earlier, None)
            if before is not None and _same_name(before, entry):
                known, before = before, next(self._earlier, None)
                if known.kind == "directory" and entry.kind != "directory":
                    self._no_folder = entry.raw_path() + b"/"
                if _unchanged(known, entry) and self._stored(known):
                    entry.sha256, entry.sparse, entry.xattrs = known.sha256, known.sparse, known.xattrs
                    yield entry, False
                    continue
                self.lost = self.lost or known.kind == "file"
            yield entry, entry.kind == "file"
        while before is not None:
            yield from self._vanished(before)
            before = next(self._earlier, None)

    def _vanished(self, before: Entry) -> Iterator[tuple[Entry, bool]]:
        # Entries below a directory can be kept only while it is a directory: nothing else can contain them.
        path = before.raw_path()
        is_there = self._changed is not None and not self._changed.covers(path)
        if (is_there or self._keep_vanished) and not path.startswith(self._no_folder):
            yield before, False
        else:
            self.lost = True


def _same_name(one: Entry, other: Entry) -> bool:
    return one.path == other.path and one.path_base64 == other.path_base64


def _unchanged(known: Entry, entry: Entry) -> bool:
    return (
        known.kind == "file"
        and known.inode == entry.inode
        and known.ctime_ns == entry.ctime_ns
        and known.size == entry.size
        and known.mtime_ns == entry.mtime_ns
        and not known.recent
        and entry.kind == "file"  # the device is not compared: its number may change with a boot
    )
