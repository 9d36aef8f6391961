"""A migration that drops a column, rewrites a table and then fails: the old release is back with its old data."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests import kept, releases
from tests.e2e.cli import run
from tests.site import Site

_REWRITES = """def apply(database, media):
    database.execute("ALTER TABLE entries DROP COLUMN mood")
    database.execute("UPDATE entries SET text = upper(text), author = 'nobody'")
    database.execute("DELETE FROM entries WHERE id % 3 = 0")
    for path in sorted(media.rglob("*.bin"))[:3]:
        path.write_bytes(b"converted")
    raise SystemExit("0007_rewrites: the third step does not work")
"""


@pytest.fixture(
    params=[
        "sqlite",
        "postgresql",
        *(pytest.param(name, marks=pytest.mark.variant(name)) for name in ("mariadb", "mysql")),
    ]
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with kept.site(request.param, ("v1", "v2")) as lent:
        releases.add(lent, "v7", "v2", "0007_rewrites", _REWRITES)
        yield lent


def test_everything_is_as_it_was_and_the_time_is_told(
    site: Site, record_property: pytest.RecordProperty, request: pytest.FixtureRequest
) -> None:
    before = site.fingerprint()
    done = run(site, "upgrade", "v7")
    assert done.returncode == 6, done.stderr
    assert "the third step does not work" in done.stderr
    took = re.search(r" in (\d+\.\d\d) s: the state before", done.stderr)
    assert took is not None, done.stderr
    assert site.fingerprint() == before
    assert site.release_label() == "v2"
    assert site.get("/")[1]["version"] == "v2"
    record_property("going_back", f"{request.node.callspec.params['site']}: undone in {took[1]} s, services started")
