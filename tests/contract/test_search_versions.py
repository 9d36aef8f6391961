"""What the driver of search indices does, on other versions of the server than that of the ordinary run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.dumps import snapshot
from tests.harnesses.search import ALIAS, SearchHarness
from tests.servers import search

pytestmark = pytest.mark.variant("elasticsearch")


@pytest.fixture(params=search.OTHERS)
def harness(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[SearchHarness]:
    server = search.SearchServer(request.param)
    try:
        made = SearchHarness(server, quick_folder)
        made.create()
        made.add("one")
        yield made
    finally:
        server.remove()


def test_snapshots_swaps_copies_and_retention(harness: SearchHarness) -> None:
    index, dump = harness.dataset, harness.folder / "dump"
    assert index.check() == [] or harness.server.version.startswith("6")
    taken = snapshot(index, dump)
    harness.add("two")
    live = harness.identity()
    candidate = index.prepare("op", dump, {})
    index.swap("op", candidate, "op.replaced")
    assert (harness.identity(), harness.texts()) == (candidate, ["one"])
    index.swap("op", live, "op.undone")
    assert harness.texts() == ["one", "two"]
    index.discard("op")
    assert index.tokens() == []
    copy = index.prepare("op2", None, {})
    harness.add("since the copy")
    index.swap("op2", copy, "op2.failed")
    assert harness.texts() == ["one", "two"]
    harness.add("writes go on")
    index.discard("op2")
    _a_built_index_takes_the_alias(harness)
    assert harness.driver.drop_snapshots({taken.facts["snapshot"]}) == []
    assert harness.driver.drop_snapshots(set()) == [taken.facts["snapshot"]]
    assert harness.driver.drop_snapshots(set()) == []


def _a_built_index_takes_the_alias(harness: SearchHarness) -> None:
    name = harness.driver.make_room("op3")
    harness.server.index(name, 0, "built")
    harness.dataset.swap("op3", harness.driver.adopt("op3"), "op3.replaced")
    assert harness.texts() == ["built"]
    harness.dataset.discard("op3")
    assert list(harness.server.ask("GET", "/*/_alias")) == [name]
    assert list(harness.server.ask("GET", f"/_alias/{ALIAS}")) == [name]
