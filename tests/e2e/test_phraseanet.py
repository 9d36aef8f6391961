"""The stand-in of Phraseanet: several databases, documents, an index and workers, saved and restored as one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.cli import run, run_json, succeed
from tests.memory import make_folder
from tests.standins.phraseanet.site import Phraseanet


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


@contextmanager
def visitors(dam: Phraseanet) -> Iterator[list[str]]:
    """Add records as long as the block runs; give those that were acknowledged."""
    acknowledged: list[str] = []
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.wait(0.02):
            number += 1
            if (made := dam.post(f"of a visitor {number}")) is not None:
                acknowledged.append(made)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        thread.join()


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
    assert dam.get() == (200, dam.get()[1]) and dam.get()[1]["banner"] == "back at noon"
    succeed(dam, "maintenance", "announce", "--clear")
    assert dam.get()[1]["banner"] == ""
    assert dam.configuration.read_bytes() == before
