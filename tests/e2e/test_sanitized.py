"""Sanitized backups on the command line: rules, decisions, dumps, and another environment that gets them."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import run, run_json, succeed
from tests.memory import make_folder
from tests.site import Site

RULES = """\
[columns]
file = { keep = "the name of a file" }
sha256 = { keep = "the digest of a file" }

[tables.entries.columns]
author = "name"
text = "text"

[tables.schema_migrations]
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site("postgresql") as lent:
        yield lent


def rules_of(site: Site) -> Path:
    return site.config.with_name("sanitize.toml")


def ready(site: Site) -> None:
    rules_of(site).write_text(RULES)
    succeed(site, "sanitize", "lock")


def only_dump(site: Site) -> Path:
    (found,) = (site.vault / "sanitized").glob("*.sql.gz")
    return found


def test_from_a_draft_to_a_dump_that_is_listed_and_deleted(site: Site) -> None:
    site.store.execute("UPDATE entries SET text = 'Raw-Text-' || id")
    told = run(site, "backup", "create", "--sanitized")
    assert told.returncode == 4 and "holdfast sanitize init" in told.stderr
    succeed(site, "sanitize", "init")
    draft = rules_of(site).read_text()
    assert 'author = "name"' in draft and '[tables."entries"]' in draft
    assert run(site, "sanitize", "init").returncode == 4, "a file of rules is never replaced"

    rules_of(site).write_text(RULES.replace('author = "name"\n', ""))
    told = run(site, "sanitize", "lock")
    assert told.returncode == 3 and "entries.author: no rule, and its name, author may mean" in told.stderr
    told = run(site, "sanitize", "preview", "entries")
    assert told.returncode == 3, "a column without a decision is not shown"
    rules_of(site).write_text(RULES)
    told = run(site, "backup", "create", "--sanitized")
    assert told.returncode == 3 and "sanitize.lock does not exist" in told.stderr
    assert not (site.vault / "sanitized").exists()

    succeed(site, "sanitize", "lock")
    assert "every column is decided" in succeed(site, "sanitize", "check")
    assert "entries.author" in succeed(site, "sanitize", "rules")
    assert "holdfast.key" in succeed(site, "sanitize", "queries")
    shown = run_json(site, "sanitize", "preview", "entries", "--rows", "3")["data"]
    assert len(shown["rows"]) == 3 and "Raw-Text" not in json.dumps(shown)

    told = succeed(site, "backup", "create", "--sanitized", "--comment", "for a developer")
    text = gzip.decompress(only_dump(site).read_bytes()).decode()
    assert "COPY" in text and "Raw-Text" not in text
    listed = run_json(site, "backup", "list", "--sanitized")["data"]["backups"]
    assert [one["comment"] for one in listed] == ["for a developer"]
    (facts,) = listed[0]["files"].values()
    assert facts["rows"]["entries"] == 120 and "psql" in facts["load"]
    key = (site.state / "sanitize.key").read_text()
    assert key not in json.dumps(listed) + text and (site.state / "sanitize.key").stat().st_mode & 0o777 == 0o600
    assert only_dump(site).name in succeed(site, "backup", "list", "--sanitized")
    for command in (["backup", "verify"], ["backup", "create"], ["backup", "prune"]):
        succeed(site, *command)
    assert run(site, "backup", "delete", listed[0]["id"]).returncode == 2
    succeed(site, "backup", "delete", "latest", "--sanitized")
    assert list((site.vault / "sanitized").iterdir()) == []


def test_a_new_column_is_refused_and_named(site: Site) -> None:
    ready(site)
    site.store.execute("ALTER TABLE entries ADD COLUMN score integer")
    for command in (["sanitize", "check"], ["backup", "create", "--sanitized"]):
        told = run(site, *command)
        assert told.returncode == 3, told.stderr
        assert "entries.score: is new (integer: keep)" in told.stderr
        assert "holdfast sanitize lock" in told.stderr
    succeed(site, "sanitize", "lock")
    succeed(site, "backup", "create", "--sanitized")


def test_the_first_backup_of_all_may_be_a_sanitized_one(site: Site) -> None:
    """It makes the vault, in which ordinary backups follow."""
    shutil.rmtree(site.vault)
    ready(site)
    succeed(site, "backup", "create", "--sanitized")
    succeed(site, "backup", "create")
    succeed(site, "backup", "verify")
    assert len(run_json(site, "backup", "list")["data"]["backups"]) == 1


def test_what_an_undo_could_not_reach_goes_with_the_next_backup(site: Site) -> None:
    ready(site)
    left = site.vault / "sanitized" / ".20200101000000.unfinished"
    left.mkdir(parents=True)
    (left / "part.00000").write_text("half a dump")
    succeed(site, "backup", "create", "--sanitized")
    assert not left.exists() and only_dump(site).exists()


def test_production_takes_no_sanitized_data(site: Site) -> None:
    ready(site)
    succeed(site, "backup", "create", "--sanitized")
    before = site.fingerprint()
    told = run(site, "backup", "restore", "latest", "--sanitized")
    assert told.returncode == 4 and "this is a production environment" in told.stderr
    assert site.fingerprint() == before


@pytest.fixture
def pair() -> Iterator[tuple[Site, Site]]:
    """A production, and a staging that is another installation of the same application."""
    folder = make_folder()
    production = Site(folder / "production", rows=30, files=3, engine="postgresql")
    staging = Site(folder / "staging", rows=12, files=2, engine="postgresql")
    try:
        text = staging.config.read_text()
        staging.config.write_text(
            text.replace('environment = "production"', 'environment = "production"\ntype = "stag"')
        )
        for one in (production, staging):
            one.operate("install", "v1")
        yield production, staging
    finally:
        for one in (production, staging):
            one.remove()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_clone_is_sanitized_unless_it_is_told_otherwise(pair: tuple[Site, Site]) -> None:
    production, staging = pair
    production.store.execute("UPDATE entries SET text = 'Raw-Text-' || id")
    there, here = str(production.config), str(staging.config)
    told = run(staging, "clone", there, here)
    assert told.returncode == 4 and "holdfast sanitize init" in told.stderr
    ready(production)
    before = production.fingerprint()
    succeed(staging, "clone", there, here)
    assert staging.get("/")[1]["entries"] == 30
    assert production.fingerprint() == before
    assert staging.store.execute("SELECT count(*) FROM entries WHERE text LIKE 'This t%'") == "30"
    assert staging.store.execute("SELECT count(*) FROM entries WHERE text LIKE 'Raw-Text%'") == "0"
    assert production.store.execute("SELECT count(*) FROM entries WHERE text LIKE 'Raw-Text%'") == "30"
    assert run(staging, "clone", here, there).returncode == 4, "never into production"
