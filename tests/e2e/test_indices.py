"""Search indices through backup, restore and upgrade, on a real server; the guestbook's rows are in the index too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from holdfast.drivers.indices.search.driver import SearchIndexDriver
from holdfast.errors import StepError
from tests import index_site, kept, search_store
from tests.e2e.cli import run, run_json
from tests.index_site import IndexSite
from tests.servers import search
from tests.servers.search import SearchServer
from tests.site import Site


@pytest.fixture
def server() -> SearchServer:
    found = search.shared()
    found.clear()
    return found


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


@pytest.fixture
def snapshotted(site: Site, server: SearchServer) -> IndexSite:
    return index_site.configure(site, server, content="snapshot")


@pytest.fixture
def rebuilt(site: Site, server: SearchServer) -> IndexSite:
    return index_site.configure(site, server, content="rebuild")


def state(found: IndexSite) -> str:
    (entry,) = run_json(found.site, "index", "list")["data"]["indices"]
    return str(entry["state"])


def post(found: IndexSite, text: bytes) -> None:
    assert found.site.post(text)[0] == 201
    found.index_everything()


def test_a_quiesced_backup_has_the_index_exactly(snapshotted: IndexSite) -> None:
    post(snapshotted, b"in the backup")
    done = run(snapshotted.site, "backup", "create", "--quiesce")
    assert done.returncode == 0, done.stderr
    before = snapshotted.indexed()
    listed = run_json(snapshotted.site, "backup", "list")["data"]["backups"][-1]
    assert listed["datasets"]["search"]["rows"] == {"documents": len(before)}
    post(snapshotted, b"since the backup")
    live = snapshotted.driver().inspect()["identity"]
    done = run(snapshotted.site, "backup", "restore", "latest", "--yes")
    assert done.returncode == 0, done.stderr
    assert snapshotted.indexed() == before
    assert snapshotted.agrees()
    assert snapshotted.driver().inspect()["identity"] != live
    assert snapshotted.driver().tokens() == []
    assert "building search again" not in done.stderr, done.stderr
    assert state(snapshotted) == "current"


def test_a_live_backup_is_followed_by_a_rebuild(snapshotted: IndexSite) -> None:
    assert run(snapshotted.site, "backup", "create", "--consistency", "live").returncode == 0
    post(snapshotted, b"since the backup")
    done = run(snapshotted.site, "backup", "restore", "latest", "--yes")
    assert done.returncode == 0, done.stderr
    assert snapshotted.agrees()
    assert state(snapshotted) == "current"


def test_without_snapshots_the_application_builds_it_again(rebuilt: IndexSite) -> None:
    assert run(rebuilt.site, "backup", "create").returncode == 0
    assert "search" not in run_json(rebuilt.site, "backup", "list")["data"]["backups"][-1]["datasets"]
    post(rebuilt, b"since the backup")
    done = run(rebuilt.site, "backup", "restore", "latest", "--yes")
    assert done.returncode == 0, done.stderr
    assert rebuilt.agrees()
    assert list(rebuilt.server.ask("GET", "/_all/_alias")) != ["guestbook_v1"]
    assert rebuilt.driver().tokens() == []


def test_an_upgrade_that_fails_puts_the_index_back(snapshotted: IndexSite) -> None:
    before = snapshotted.indexed()
    document = f"{snapshotted.server.url}/{search_store.ALIAS}/_doc/1?refresh=true"
    manage = "; ".join(
        [
            "import urllib.request as u",
            f"u.urlopen(u.Request('{document}', method='DELETE'))",
            "raise SystemExit('the migration fails')",
        ]
    )
    text = snapshotted.site.config.read_text()
    replaced = text.replace('migrate = ["python3", "manage.py", "migrate"]', f'migrate = ["python3", "-c", "{manage}"]')
    assert replaced != text
    snapshotted.site.config.write_text(replaced)
    done = run(snapshotted.site, "upgrade", "v2")
    assert done.returncode == 6, done.stderr
    assert snapshotted.indexed() == before
    assert snapshotted.agrees()
    assert snapshotted.driver().tokens() == []
    post(snapshotted, b"the index takes writes again")


def test_writers_of_an_index_whose_copy_never_ended_go_on_again(snapshotted: IndexSite) -> None:
    index = snapshotted.driver()
    assert isinstance(index, SearchIndexDriver)
    operation = str(run_json(snapshotted.site, "backup", "create")["data"]["operation"])
    index._beside.block(search_store.FIRST, operation)
    with pytest.raises(StepError):
        snapshotted.server.index(search_store.ALIAS, 99, "refused")
    assert index.tokens() == [operation]
    done = run(snapshotted.site, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert index.tokens() == []
    post(snapshotted, b"the index takes writes again")


def test_a_search_server_that_is_down_blocks_neither_backup_nor_restore(
    snapshotted: IndexSite, server: SearchServer
) -> None:
    assert run(snapshotted.site, "backup", "create", "--quiesce").returncode == 0
    post(snapshotted, b"since the backup")
    server.kill()
    try:
        done = run(snapshotted.site, "backup", "create")
        assert done.returncode == 0, done.stderr
        backups = run_json(snapshotted.site, "backup", "list")["data"]["backups"]
        assert "without the index search" in backups[-1]["reason"]
        done = run(snapshotted.site, "backup", "restore", backups[-2]["id"], "--yes")
        assert done.returncode == 0, done.stderr
        assert "holdfast index rebuild search" in done.stdout + done.stderr
        assert run_json(snapshotted.site, "status")["data"]["stale_indices"].keys() == {"search"}
    finally:
        server.start()
    assert not snapshotted.agrees()
    problems = json.dumps(run_json(snapshotted.site, "check")["data"])
    assert "holdfast index rebuild search" in problems
    done = run(snapshotted.site, "index", "rebuild")
    assert done.returncode == 0, done.stderr
    assert snapshotted.agrees()
    assert state(snapshotted) == "current"


def test_snapshots_go_with_their_backups(snapshotted: IndexSite) -> None:
    for _ in range(5):
        assert run(snapshotted.site, "backup", "create", "--consistency", "live").returncode == 0
    assert len(snapshotted.server.snapshot_names("holdfast")) == 5
    done = run(snapshotted.site, "backup", "prune", "--yes")
    assert done.returncode == 0, done.stderr
    left = run_json(snapshotted.site, "backup", "list")["data"]["backups"]
    kept_snapshots = {item["datasets"]["search"]["engine"]["snapshot"] for item in left if "search" in item["datasets"]}
    found = set(snapshotted.server.snapshot_names("holdfast"))
    assert found == kept_snapshots
    assert 0 < len(found) < 5


def test_a_command_that_builds_nothing_is_an_error_that_names_it(rebuilt: IndexSite) -> None:
    text = rebuilt.site.config.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("rebuild = ")]
    rebuilt.site.config.write_text(text.replace(line, 'rebuild = ["true", "{index}"]'))
    done = run(rebuilt.site, "index", "rebuild", "search")
    assert done.returncode == 6
    assert "did not make hf-" in done.stderr
    assert rebuilt.agrees()
