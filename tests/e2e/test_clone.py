"""Data of one environment in another: everything comes over, nothing is shared, production is never the target."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from holdfast.errors import OperationFailedError, RefusedError
from holdfast.model import Outcome
from holdfast.operations import backup, clone
from tests.e2e.cli import run
from tests.memory import make_folder
from tests.site import Site


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.variant("mariadb"))])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Site, Site]]:
    """A production, and a staging that is another installation of the same application."""
    folder = make_folder()
    production = Site(folder / "production", rows=30, files=3, engine=request.param)
    staging = Site(folder / "staging", rows=120, files=12, engine=request.param)
    try:
        text = staging.config.read_text()
        staging.config.write_text(
            text.replace('environment = "production"', 'environment = "production"\ntype = "stag"')
        )
        for site in (production, staging):
            site.operate("install", "v1")
        production.post(b"of production")
        yield production, staging
    finally:
        for site in (production, staging):
            site.remove()
        shutil.rmtree(folder, ignore_errors=True)


def as_staging(site: Site) -> Site:
    """What was a production is made one by its operator, who says so in two places."""
    (site.state / "environment.json").unlink(missing_ok=True)
    text = site.config.read_text()
    site.config.write_text(text.replace('environment = "production"', 'environment = "production"\ntype = "stag"'))
    return site


def cloned(production: Site, staging: Site, **options: bool) -> None:
    before, app = production.open(), staging.open()
    try:
        before.run(backup.plan(before))
        result = app.run(clone.plan(app, before, "latest", unsanitized=True, **options))
        assert result.outcome is Outcome.COMMITTED
    finally:
        app.close()
        before.close()


def test_rows_and_files_come_over_and_the_source_stays(pair: tuple[Site, Site]) -> None:
    production, staging = pair
    old = production.fingerprint()
    assert staging.fingerprint() != old
    cloned(production, staging)
    assert staging.fingerprint() == old == production.fingerprint()
    assert staging.get("/")[0] == 200
    staging.post(b"of staging")
    assert production.fingerprint() == old, "what is written in one is not in the other"
    assert not list((production.vault / "pins").iterdir())


def test_a_target_that_is_newer_migrates_what_it_gets_and_an_older_one_refuses(pair: tuple[Site, Site]) -> None:
    production, staging = pair
    staging.operate("upgrade", "v2")
    cloned(production, staging, safety=False)
    assert (staging.release_label(), staging.get("/")[0]) == ("v2", 200)
    old = production.fingerprint()
    with pytest.raises(RefusedError, match="older than the database in the backup"):
        cloned(staging, as_staging(production))
    assert production.fingerprint() == old


def test_one_that_fails_leaves_the_target_as_it_was(pair: tuple[Site, Site]) -> None:
    production, staging = pair
    old = staging.fingerprint()
    text = staging.config.read_text()
    staging.config.write_text(text.replace("[tasks]", '[tasks]\nafter_clone = ["false"]'))
    with pytest.raises(OperationFailedError):
        cloned(production, staging)
    assert staging.fingerprint() == old
    assert staging.get("/")[0] == 200
    assert not list((production.vault / "pins").iterdir())


@pytest.mark.parametrize("pair", ["sqlite"], indirect=True)
def test_what_is_refused_is_told_and_nothing_is_touched(pair: tuple[Site, Site]) -> None:
    production, staging = pair
    there, here = str(production.config), str(staging.config)
    told = run(staging, "clone", there, here)
    assert (told.returncode, "holdfast sanitize init" in told.stderr) == (4, True), told.stderr
    told = run(staging, "clone", here, there, "--unsanitized")
    assert (told.returncode, "cloning into it is refused" in told.stderr) == (4, True), told.stderr
    told = run(staging, "clone", here, here, "--unsanitized")
    assert (told.returncode, " share " in told.stderr) == (4, True), told.stderr
    told = run(staging, "clone", ".", here, "--unsanitized")
    assert told.returncode != 0
    assert "no environment" not in told.stderr, "a dot is a folder"
    assert run(staging, "clone", there, here, "--unsanitized", "--reason", "a test").returncode == 0
    assert staging.fingerprint() == production.fingerprint()
    newest = run(staging, "log", "list").stdout.splitlines()[1].split()[0]
    assert "--unsanitized" in run(staging, "log", "show", newest).stdout
