"""`import list`, and dumps that are found by their bare name."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli import run, run_json
from tests.site import Site

# More than is read to tell a format.
LINES = [f"INSERT INTO a VALUES ('{hashlib.sha256(b'%d' % number).hexdigest()}');" for number in range(9000)]
SQL = "\n".join(["CREATE TABLE a (b VARCHAR(64));", *LINES, ""]).encode()


@pytest.fixture
def dumps(site: Site) -> Path:
    """The folder of an application's own script: with dumps, one that was cut, and files that are none."""
    place = site.app_folder / "dumps"
    place.mkdir()
    text = site.config.read_text()
    site.config.write_text(text.replace("[databases.main]", '[databases.main]\nimport_from = ["dumps", "absent"]'))
    whole = gzip.compress(SQL)
    (place / "shop_2026_01_03T04_05_06.sql.gz").write_bytes(whole)
    (place / "shop_2026_01_02T03_04_05.sql.gz").write_bytes(whole[: len(whole) // 2])
    (place / "unnamed.sql").write_bytes(SQL)
    os.utime(place / "unnamed.sql", (1_500_000_000, 1_500_000_000))  # 2017-07-14 02:40:00
    (place / "picture.dump").write_bytes(bytes(range(256)) * 8)
    os.utime(place / "picture.dump", (1_800_000_000, 1_800_000_000))
    (place / "notes.txt").write_bytes(SQL)
    (place / "folder.sql").mkdir()
    return place


def listed(site: Site, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_json(site, "import", "list", *arguments)["data"]["dumps"]
    return found


def test_dumps_are_listed_by_the_time_in_their_name(site: Site, dumps: Path) -> None:
    found = listed(site)
    assert [(item["name"], item["at"]) for item in found[:3]] == [
        ("unnamed.sql", "2017-07-14 02:40:00"),
        ("shop_2026_01_02T03_04_05.sql.gz", "2026-01-02 03:04:05"),
        ("shop_2026_01_03T04_05_06.sql.gz", "2026-01-03 04:05:06"),
    ]
    assert [item["name"] for item in found[3:]] == ["picture.dump"]
    assert {item["database"] for item in found} == {"main"}
    assert [item["format"] for item in found] == ["SQL", "SQL", "SQL", "-"]
    assert [bool(item["state"]) for item in found] == [False, False, False, True]
    assert found[0]["size_bytes"] == len(SQL)
    done = run(site, "import", "list", "--database", "main")
    assert done.returncode == 0, done.stderr
    assert "unnamed.sql" in done.stdout


def test_a_dump_that_was_cut_is_found_by_reading_it(site: Site, dumps: Path) -> None:
    found = {item["name"]: item["state"] for item in listed(site, "--test")}
    assert found["shop_2026_01_02T03_04_05.sql.gz"] == "damaged"
    assert found["shop_2026_01_03T04_05_06.sql.gz"] == found["unnamed.sql"] == ""


def test_nothing_to_list(site: Site) -> None:
    assert listed(site) == []
    assert run(site, "import", "list", "--database", "none").returncode == 4


def test_a_bare_name_is_looked_for(site: Site, dumps: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    site.operate("install", "v1")
    site.store.dump(dumps / "own.dump")
    before = site.store.digest()
    site.post(b"since the dump")
    monkeypatch.chdir(folder)
    done = run(site, "import", "database", "own.dump")
    assert done.returncode == 0, done.stderr
    assert site.store.digest() == before
    done = run(site, "import", "database", "none.dump")
    assert done.returncode == 4, done.stderr
    (site.app_folder / "absent").mkdir()
    (site.app_folder / "absent" / "own.dump").write_bytes(SQL)
    done = run(site, "import", "database", "own.dump")
    assert done.returncode == 4, done.stderr
    assert site.store.digest() == before
