"""Where loop mounts need root that is missing: a record of what this process changed and what it made durable.

A power loss keeps a name if its directory was synced after the change, and a content if its file was synced after
it. The recorder listens to the interpreter's own audit events, so no change made in Python escapes it; what commands
and SQLite write is covered by the filesystem's own sync, which is recorded too.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.system import durable, fault_points

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Recorder:
    """A recorder; `at_write` gets the journal's label and what is not durable yet, as `name PATH` or `content PATH`."""

    roots: Sequence[Path]
    ignored: Callable[[Path], bool]
    at_write: Callable[[str, list[str]], None]
    unfinished: Callable[[Path], bool] = lambda path: False
    early: list[str] = field(default_factory=list)  # contents that got their final name before they were durable
    on: bool = False
    names: set[Path] = field(default_factory=set)  # entries of directories that were changed and not synced
    contents: set[Path] = field(default_factory=set)
    synced_filesystems: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)  # the vault reads and writes in threads

    def lost(self) -> list[str]:
        """What a power loss now would take."""
        found = [f"name {path}" for path in self.names] + [f"content {path}" for path in self.contents if path.exists()]
        return sorted(item for item in found if not self.ignored(Path(item.partition(" ")[2])))

    # --- events ------------------------------------------------------------------------------------

    def _own(self, value: Any) -> Path | None:
        if not isinstance(value, str | bytes | os.PathLike):
            return None
        path = Path(os.path.abspath(os.fsdecode(value)))
        return path if any(root == path or root in path.parents for root in self.roots) else None

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        with self._lock:
            self._hear(event, arguments)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            self._opened(self._own(arguments[0]), arguments[2])
        elif event in ("os.mkdir", "os.remove", "os.rmdir"):
            self._named(self._own(arguments[0]))
        elif event in ("os.symlink", "os.link"):
            self._named(self._own(arguments[1]))
        elif event == "os.rename":
            self._renamed(self._own(arguments[0]), self._own(arguments[1]))

    def _opened(self, path: Path | None, flags: int) -> None:
        if path is None or path.is_dir():
            return
        if flags & os.O_CREAT and not path.exists():
            self.names.add(path)
        self.contents.add(path)

    def _named(self, path: Path | None) -> None:
        if path is not None:
            self.names.add(path)

    def _renamed(self, source: Path | None, target: Path | None) -> None:
        self._named(source)
        self._named(target)
        if source is None or target is None:
            return
        if self.unfinished(source) and not self.unfinished(target):
            # It may take the place of what an earlier set vouches for, whenever the journal is written.
            self.early += [f"content {path} is moved to its place" for path in self.contents if path == source]
        for group in (self.contents, self.names):
            moved = {path for path in group if source == path or source in path.parents}
            group -= moved if group is self.contents else moved - {source}
            group |= {target / path.relative_to(source) for path in moved if path != source or group is self.contents}

    def fsynced(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        with self._lock:
            if path.is_dir():
                self.names = {name for name in self.names if name.parent != path}
            else:
                self.contents.discard(path)

    def everything_synced(self, path: str | os.PathLike[str]) -> None:
        """All roots of a test lie on one filesystem; one that lies elsewhere keeps what it has."""
        device = os.stat(path).st_dev
        with self._lock:
            self.synced_filesystems += 1
            self.names = {name for name in self.names if _device(name) != device}
            self.contents = {name for name in self.contents if _device(name) != device}


def _device(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return path.stat().st_dev


_listening: list[Recorder] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for recorder in _listening:
        recorder.hear(event, arguments)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Listens while the block runs. The hook itself stays in the process for ever and is silent without a listener."""
    if not getattr(sys, "_power_recorder", False):
        sys.addaudithook(_hook)
        sys._power_recorder = True  # type: ignore[attr-defined]
    fsync, sync_filesystem = os.fsync, durable.sync_filesystem

    def os_fsync(descriptor: Any) -> None:
        fsync(descriptor)
        recorder.fsynced(descriptor if isinstance(descriptor, int) else descriptor.fileno())

    def durable_sync_filesystem(path: str | os.PathLike[str]) -> None:
        sync_filesystem(path)
        recorder.everything_synced(path)

    def reached(label: str) -> None:
        if label.startswith("before journal "):
            recorder.on = False
            recorder.at_write(label.removeprefix("before journal "), recorder.lost())
        elif label.startswith("journal "):
            recorder.on = True

    os.fsync, durable.sync_filesystem = os_fsync, durable_sync_filesystem
    fault_points.listen(reached)
    _listening.append(recorder)
    recorder.on = True
    try:
        yield
    finally:
        recorder.on = False
        _listening.remove(recorder)
        fault_points.forget(reached)
        os.fsync, durable.sync_filesystem = fsync, sync_filesystem
