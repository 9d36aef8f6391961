"""The stand-in of Phraseanet: several databases, documents, an index and workers, saved and restored as one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.cli import output, run, run_json, start, succeed
from tests.memory import make_folder
from tests.proof import patience
from tests.standins.phraseanet.site import Phraseanet
from tests.standins.visitor import writing

pytestmark = pytest.mark.combination


@pytest.fixture(scope="module")
def dam() -> Iterator[Phraseanet]:
    """v4.1.20 with two DataBoxes and some records."""
    made = Phraseanet(make_folder("hfp"))
    try:
        succeed(made, "install", "v4.1.20")
        made.add_box("box2")
        for number in range(10):
            assert made.post(f"record {number}")
        yield made
    finally:
        made.end()


def visitors(dam: Phraseanet) -> AbstractContextManager[list[str]]:
    """Add records as long as the block runs; give those that were acknowledged."""
    return writing(lambda: dam.post("of a visitor"), 0.02)


def assert_agrees(dam: Phraseanet) -> None:
    """Each record has its document and is in the index, and nothing else is."""
    records = dam.records()
    assert dam.documents() == records
    assert dam.indexed() == records


def test_a_quiesced_backup_is_restored_with_its_index_and_thumbnails(dam: Phraseanet) -> None:
    with visitors(dam) as acknowledged:
        succeed(dam, "backup", "create", "--quiesce")
    assert acknowledged
    listed = run_json(dam, "backup", "list")["data"]["backups"][-1]
    assert {"main", "datas", "search", *(f"main-{box}" for box in dam.boxes())} <= set(listed["datasets"])
    succeed(dam, "service", "stop", "worker")
    dam.run(dam.boxes()[0], "DELETE FROM record")
    for path in dam.datas.glob("*/documents/*.bin"):
        path.unlink()
    succeed(dam, "service", "start", "worker")
    succeed(dam, "backup", "restore", "latest")
    assert_agrees(dam)
    assert len(dam.records()) >= 10
    assert dam.thumbnails() == dam.records(), "workers were drained before the instant"


@pytest.mark.parametrize("arguments", [("backup", "create", "--quiesce"), ("backup", "restore", "latest")])
def test_what_is_killed_while_visitors_wait_ends_whole(dam: Phraseanet, arguments: tuple[str, ...]) -> None:
    succeed(dam, "backup", "create", "--quiesce")
    killed = start(dam, *arguments)
    patience.until(lambda: dam.get()[0] == 503 or killed.poll() is not None)
    assert killed.poll() is None, output(dam)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    succeed(dam, "recover")
    assert dam.get()[0] == 200
    assert dam.post("after it")
    dam.wait_for_workers()
    assert_agrees(dam)


def test_a_dump_of_each_database_loads_into_a_new_one(dam: Phraseanet, tmp_path: Path) -> None:
    succeed(dam, "backup", "export", "--databases", "--unsanitized", "--reason", "a test", str(tmp_path / "away"))
    (away,) = (tmp_path / "away").iterdir()
    for box in dam.boxes():
        with dam.store.shared() as server, server.own_database() as other:
            server.create_if_missing(other)
            server.run(other, (away / f"database.main-{box}.sql").read_text())
            assert server.run(other, "SELECT * FROM record ORDER BY 1") == dam.run(
                box, "SELECT * FROM record ORDER BY 1"
            )


def test_a_new_databox_is_in_the_next_backup(dam: Phraseanet) -> None:
    third = dam.add_box("box3")
    succeed(dam, "backup", "create")
    assert f"main-{third}" in run_json(dam, "backup", "list")["data"]["backups"][-1]["datasets"]


def test_an_upgrade_changes_every_databox_and_one_that_fails_none(dam: Phraseanet) -> None:
    dam.wait_for_workers()
    before = dam.digest()
    done = run(dam, "upgrade", "v4.1.23-dies")
    assert done.returncode == 6, done.stderr
    assert dam.digest() == before
    assert_agrees(dam)
    done = run(dam, "upgrade", "v4.1.24-fails")
    assert done.returncode == 6, done.stderr
    assert dam.digest() == before
    with visitors(dam) as acknowledged:
        succeed(dam, "upgrade", "v4.1.22")
    assert dam.get()[1]["version"] == "4.1.22"
    assert set(acknowledged) <= dam.records()
    for box in dam.boxes():
        assert dam.run(box, "SELECT value FROM pref WHERE prop = 'version'") == "4.1.22"
        assert dam.run(box, "SHOW COLUMNS FROM record LIKE 'caption'")
    dam.wait_for_workers()
    assert_agrees(dam)


def test_the_banner_is_shown_and_taken_back_and_the_file_is_as_it_was(dam: Phraseanet) -> None:
    before = dam.configuration.read_bytes()
    succeed(dam, "maintenance", "announce", "back at noon")
    # PHP looks for a new compiled configuration every two seconds (opcache.revalidate_freq).
    patience.until(lambda: dam.get()[1]["banner"] == "back at noon")
    assert dam.get()[0] == 200
    succeed(dam, "maintenance", "announce", "--clear")
    patience.until(lambda: dam.get()[1]["banner"] == "")
    assert dam.configuration.read_bytes() == before


def test_a_live_backup_is_restored_and_index_and_thumbnails_made_again(dam: Phraseanet) -> None:
    with visitors(dam):
        succeed(dam, "backup", "create", "--consistency", "live")
    since = dam.post("since the backup")
    succeed(dam, "backup", "restore", "latest")
    records = dam.records()
    assert since not in records
    patience.until(lambda: dam.indexed() == records)
    dam.wait_for_workers()
