"""Files of a backup in a folder of their own, as an ordinary user gets them."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.drivers.interchange import extraction
from holdfast.model import Entry
from tests.ordinary import as_ordinary_user


def test_an_ordinary_user_gets_files_of_his_own(quick_folder: Path) -> None:
    place = quick_folder / "place"
    place.mkdir(mode=0o777)
    for above in (place, *place.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    place.chmod(0o777)
    entries = [
        Entry("d", "directory", "2555", 0, 0, 1),
        Entry("d/tool", "file", "4755", 0, 0, 2, 3, sha256="x"),
        Entry("d/way", "symlink", "777", 0, 0, 3, target="/etc"),
    ]

    def extract() -> None:
        extraction.extract(
            place / "out",
            {"media": lambda: iter(entries)},
            lambda entry, target: os.write(target, b"new") and None,
            lambda: None,
        )

    as_ordinary_user(extract)
    tool = (place / "out" / "media" / "d" / "tool").stat()
    assert (tool.st_mode & 0o7777, tool.st_mtime_ns) == (0o755, 2)
    assert tool.st_uid == (place / "out").stat().st_uid
    assert (place / "out" / "media" / "d").stat().st_mode & 0o7777 == 0o555
    if os.geteuid() == 0:
        assert tool.st_uid == 65534
