"""The application's own pages for a status code, by host: `503.shop.example.html`, then `503.html`.

They come from a folder of the release that serves visitors, or else of the folder of holdfast.toml. A request names a
host, so nothing of it becomes a path: only letters, digits, dots and hyphens are looked up, and no link is followed.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the front starts without the modules that write this file
    from holdfast.drivers.gates.state_file import GateFacts

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_MOST_BYTES = 1 << 20
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def names(code: int, host: str) -> list[str]:
    """Return the file names that are looked for, the best first."""
    plain = host.lower().rpartition("]")[2].partition(":")[0].rstrip(".")
    own = [f"{code}.{plain}.html"] if _HOST.fullmatch(plain) else []
    return [*own, f"{code}.html"]


def own_page(state: GateFacts, code: int, host: str = "") -> str | None:
    """Return the application's own page for a code, where it has one."""
    folder = state.get("pages")
    if not folder:
        return None
    release = state.get("release")
    tops = [os.path.join(state.get("releases", ""), release)] if release else []
    return find([*tops, state.get("root", "")], folder, code, host)


def find(tops: list[str], folder: str, code: int, host: str) -> str | None:
    """Return the page for a code and a host; None where there is none that can be read.

    `tops`: the folders that may contain `folder`, in their order; one without it is passed over.
    """
    for top in tops:
        descriptor = _opened(top, folder)
        if descriptor is None:
            continue
        try:
            for name in names(code, host):
                if (text := _read(descriptor, name)) is not None:
                    return text
        finally:
            os.close(descriptor)
    return None


def _opened(top: str, folder: str) -> int | None:
    """Open a folder below another one without following a link; None where that is not possible."""
    try:
        here = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    for name in folder.split("/"):
        if name in ("", "."):
            continue
        try:
            inner = os.open(name, _FOLDER, dir_fd=here) if name != ".." else None
        except OSError:
            inner = None
        os.close(here)
        if inner is None:
            return None
        here = inner
    return here


def _read(folder: int, name: str) -> str | None:
    try:
        # A pipe in the place of a page must not hold the proxy.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return None
        return os.read(descriptor, _MOST_BYTES).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
