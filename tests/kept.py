"""Sites that are installed once per process, and put back to that state for each test that asks for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.memory import make_folder
from tests.proof.endings import at_end
from tests.site import ALONE, IN_CONTAINERS, Site
from tests.snapshot import Snapshot

_Key = tuple[str, tuple[str, ...], bool, float]
_kept: dict[_Key, tuple[Site, Snapshot]] = {}
_distrusted: set[Site] = set()
_lent: set[Site] = set()


@contextmanager
def site(
    engine: str = "sqlite", tags: tuple[str, ...] = ("v1",), *, backup: bool = False, slow: float = 0.4
) -> Iterator[Site]:
    """Lend a running site on which releases were deployed in this order, and a backup made after them if asked for.

    One whose user failed is not lent again: nobody knows what it was left in.
    """
    key = (engine, tags, backup, slow)
    found, saved = _kept.pop(key, None) or _made(*key)
    _lent.add(found)
    try:
        found.put_back(saved, start=bool(tags))
        yield found
    except BaseException:
        _distrusted.add(found)
        raise
    finally:
        _lent.discard(found)
        # Another test may have created one meanwhile; sites in containers would disturb the engine, and some are to be
        # alone on their server.
        if found in _distrusted or key in _kept or engine in IN_CONTAINERS or engine in ALONE:
            _distrusted.discard(found)
            _remove(found)
        else:
            _kept[key] = (found, saved)


def distrust() -> None:
    """Keep none of the sites that are lent now: a test that uses one has failed."""
    _distrusted.update(_lent)


def _made(engine: str, tags: tuple[str, ...], backup: bool, slow: float) -> tuple[Site, Snapshot]:
    made = Site(make_folder() / "s", engine=engine, slow=slow)
    at_end(lambda: _forget(made))
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


def _forget(made: Site) -> None:
    """Remove a site at the end, if it is still kept."""
    for key, (kept, _) in list(_kept.items()):
        if kept is made:
            del _kept[key]
            _remove(made)
