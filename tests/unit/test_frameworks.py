"""Applied and shipped migrations under the same names, for each framework."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.application.frameworks import applied_names, shipped_names

ALEMBIC = {
    "first": ("a1", None),
    "second": ("b2", "a1"),
    "left": ("c3", "b2"),
    "right": ("d4", "b2"),
    "joined": ("e5", ("c3", "d4")),
}


def write(folder: Path, name: str, text: str = "") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture
def alembic(folder: Path) -> Path:
    for name, (revision, down) in ALEMBIC.items():
        annotation = ": str | None" if name == "second" else ""
        write(
            folder,
            f"app/versions/{name}.py",
            f"revision{annotation} = '{revision}'\ndown_revision{annotation} = {down!r}\n",
        )
    write(folder, "app/versions/__init__.py")
    return folder


@pytest.mark.parametrize(
    ("heads", "before"),
    [
        (["b2"], ["a1", "b2"]),
        (["e5"], ["a1", "b2", "c3", "d4", "e5"]),
        (["c3", "d4"], ["a1", "b2", "c3", "d4"]),
        ([], []),
    ],
)
def test_alembic_names_the_last_ones_only(alembic: Path, heads: list[str], before: list[str]) -> None:
    assert applied_names("alembic", [(head,) for head in heads], alembic) == before
    assert shipped_names("alembic", alembic, "") == ["a1", "b2", "c3", "d4", "e5"]


def test_a_revision_that_the_release_does_not_know_stays(alembic: Path) -> None:
    assert applied_names("alembic", [("f6",)], alembic) == ["f6"]


def test_doctrine_rails_and_flyway(folder: Path) -> None:
    write(folder, "migrations/2026/Version20260101.php")
    write(folder, "migrations/Version20260202.php")
    assert shipped_names("doctrine", folder, "") == ["Version20260101", "Version20260202"]
    assert applied_names("doctrine", [("DoctrineMigrations\\Version20260101",)], folder) == ["Version20260101"]
    write(folder, "db/migrate/20260101120000_add_users.rb")
    assert (
        shipped_names("rails", folder, "")
        == ["20260101120000"]
        == applied_names("rails", [("20260101120000",)], folder)
    )
    write(folder, "sql/V1_2__more.sql")
    write(folder, "sql/V1__first.sql")
    write(folder, "sql/R__repeatable.sql")
    assert shipped_names("flyway", folder, "") == ["1", "1.2"] == applied_names("flyway", [("1",), ("1.2",)], folder)
    assert shipped_names("flyway", folder, "sql/V1__*.sql") == ["1"]


def test_rails_records_numbers_and_redmine_the_plugin(folder: Path) -> None:
    for name in ("db/migrate/001_setup.rb", "db/migrate/20220224194639_later.rb", "plugins/wiki/db/migrate/002_a.rb"):
        write(folder, name)
    write(folder, "extra/sample/db/migrate/003_of_nobody.rb")
    assert shipped_names("rails", folder, "") == ["1", "2-wiki", "20220224194639"]
