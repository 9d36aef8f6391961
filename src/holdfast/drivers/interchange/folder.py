"""A listing with its contents, written as a new plain folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.drivers.entries import inside
from holdfast.drivers.files.staging import make_file, set_metadata, wanted_metadata
from holdfast.drivers.protocols.files import Fetch
from holdfast.model import Entry


def write_folder(
    folder: Path,
    listing: Callable[[], Iterator[Entry]],
    fetch: Fetch,
    wrote: Callable[[bytes, Entry], None],
    passed: Callable[[int], None],
) -> None:
    """Make the folder, which others cannot enter, with everything in the listing; set owners where permitted.

    `wrote` is called with each file's path below the folder, `passed` with the bytes of content as they are written.
    Raise DamagedError for an incomplete content or listing.
    """
    os.mkdir(folder, 0o700)
    root = os.fsencode(folder) + b"/"
    links: dict[tuple[str, str], bytes] = {}
    for entry in inside(listing()):
        path = root + entry.raw_path()
        if entry.kind == "directory":
            os.mkdir(path, 0o700)
        elif entry.kind == "file":
            group = (entry.hardlink, entry.sha256)
            if entry.hardlink and group in links:
                os.link(links[group], path)
            else:
                make_file(fetch, entry, path)
                links |= {group: path} if entry.hardlink else {}
                passed(entry.size)
            wrote(entry.raw_path(), entry)
        else:
            if entry.kind == "symlink":
                os.symlink(entry.raw_target(), path)
            else:
                os.mkfifo(path)
            set_metadata(path, wanted_metadata(entry), symlink=entry.kind == "symlink")
    # The listing is read a second time, because a directory's time can be set only once nothing more is put into it.
    for entry in inside(listing()):
        if entry.kind == "directory":
            set_metadata(root + entry.raw_path(), wanted_metadata(entry))
        passed(0)
