"""Sites that are installed once per process, and put back to that state for each test that asks for them."""

from __future__ import annotations

import atexit
import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.errors import HoldfastError
from tests.memory import make_folder
from tests.site import Site
from tests.snapshot import Snapshot

_Key = tuple[str, tuple[str, ...], bool]
_kept: dict[_Key, tuple[Site, Snapshot]] = {}


@contextmanager
def site(engine: str = "sqlite", tags: tuple[str, ...] = ("v1",), *, backup: bool = False) -> Iterator[Site]:
    """Lend a running site on which releases were deployed in this order, and a backup made after them if asked for.

    One whose user failed is not lent again: nobody knows what it was left in.
    """
    key = (engine, tags, backup)
    found, saved = _kept.pop(key, None) or _made(*key)
    try:
        found.put_back(saved, start=bool(tags))
        yield found
    except BaseException:
        _remove(found)
        raise
    if key in _kept:  # somebody else asked for the same one meanwhile
        _remove(found)
    else:
        _kept[key] = (found, saved)


def _made(engine: str, tags: tuple[str, ...], backup: bool) -> tuple[Site, Snapshot]:
    made = Site(make_folder() / "s", engine=engine)
    try:
        for number, tag in enumerate(tags):
            made.operate("upgrade" if number else "install", tag)
        if backup:
            made.operate("backup")
        return made, made.save("kept")
    except BaseException:
        _remove(made)
        raise


def _remove(site: Site) -> None:
    site.remove()
    shutil.rmtree(site.folder.parent, ignore_errors=True)


def release() -> None:
    """Remove all of them."""
    while _kept:
        found, _ = _kept.popitem()[1]
        with contextlib.suppress(HoldfastError, OSError, AssertionError):
            _remove(found)


atexit.register(release)
