"""A folder is put back to what it was, and nothing that was not touched is written again."""

from __future__ import annotations

import os
from pathlib import Path

from tests.snapshot import Snapshot


def described(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return what every entry is: its mode, its time and its content or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def test_everything_that_was_touched_is_put_back(quick_folder: Path) -> None:
    folder = quick_folder / "s"
    (folder / "inner" / "deep").mkdir(parents=True)
    for name in (
        "untouched",
        "changed",
        "same-size-and-time",
        "gone",
        "inner/renamed",
        "inner/becomes-a-folder",
        "mode",
    ):
        (folder / name).write_text(f"content of {name}")
    (folder / "link").symlink_to("untouched")
    (folder / "becomes-a-file").mkdir()
    saved = Snapshot(folder, quick_folder / "s.saved")
    before = described(folder)
    untouched = (folder / "untouched").stat().st_ino

    (folder / "changed").write_text("other")
    status = (folder / "same-size-and-time").stat()
    (folder / "same-size-and-time").write_text("CONTENT of same-size-and-time")
    os.utime(folder / "same-size-and-time", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "gone").unlink()
    (folder / "inner" / "renamed").rename(folder / "elsewhere")
    (folder / "inner" / "becomes-a-folder").unlink()
    (folder / "inner" / "becomes-a-folder" / "with").mkdir(parents=True)
    (folder / "becomes-a-file").rmdir()
    (folder / "becomes-a-file").write_text("x")
    (folder / "mode").chmod(0o600)
    (folder / "link").unlink()
    (folder / "link").symlink_to("changed")
    (folder / "new").mkdir(mode=0o500)
    (folder / "running.sock").touch()

    saved.put_back()
    (folder / "running.sock").unlink()  # a server that runs on is reached by it
    os.utime(folder, ns=(0, 0))
    assert described(folder) == before
    assert (folder / "untouched").stat().st_ino == untouched

    (folder / "changed").write_text("once more")
    saved.put_back()
    assert described(folder) == before
