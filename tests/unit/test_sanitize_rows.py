"""Which rows are taken, on SQLite, compared with a reference in plain Python: references always find their row."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.drivers.databases.sqlite.sanitized_copy import AskCopy, AskSchema, SanitizingJob
from holdfast.drivers.databases.sqlite.sanitized_schema import quoted
from holdfast.sanitize import rules
from holdfast.sanitize.deciding import Decided, decide
from holdfast.sanitize.schema import Schema
from tests.memory import make_folder, remove_folder

KEY = "c0ffee" * 10
Row = dict[str, object]
Rows = dict[str, list[Row]]


class Link(msgspec.Struct, frozen=True):
    """A foreign key; `by_name` is one to the unique text of the parent, which a rule replaces."""

    parent: str
    by_name: bool
    needed: bool

    @property
    def target(self) -> str:
        return "name" if self.by_name else "id"


class Made(msgspec.Struct, frozen=True):
    """A table, its data and the rule of its rows."""

    name: str
    links: dict[str, Link]
    rows: list[Row]
    rule: tuple[str, int]


# --- the reference -------------------------------------------------------------------------------


class Reference:
    """What the documentation says, row by row."""

    def __init__(self, tables: dict[str, Made]) -> None:
        self.tables = tables
        self.empty = {one.name for one in tables.values() if one.rule[0] in ("none", "cascade")}
        cascading = {one.name for one in tables.values() if one.rule[0] == "cascade"}
        for _ in tables:
            cascading |= {
                one.name for one in tables.values() if any(link.parent in cascading for link in one.links.values())
            }
        self.empty |= cascading
        self.limited = {one.name for one in tables.values() if one.rule[0] != "all"} | self.empty
        for _ in tables:
            self.limited |= {
                one.name
                for one in tables.values()
                if any(
                    link.parent in self.limited
                    and link.parent != one.name
                    and not (link.parent in self.empty and not link.needed)
                    for link in one.links.values()
                )
            }

    def _above(self, name: str) -> set[str]:
        """Return the tables whose missing rows lead to missing rows of one."""
        parents = {link.parent for link in self.tables[name].links.values()}
        return {one for one in parents if one != name and one in self.limited and one not in self.empty}

    def _reaches(self, name: str) -> set[str]:
        found = self._above(name)
        for _ in self.tables:
            found |= {above for one in found for above in self._above(one)}
        return found

    def circular(self, table: Made, link: Link) -> bool:
        above = {link.parent} | self._reaches(link.parent)
        return link.parent != table.name and link.parent not in self.empty and table.name in above

    def cleared(self, table: Made, link: Link) -> bool:
        """Return whether a reference to a row that is left out becomes NULL, so that its row stays."""
        if link.parent not in self.limited:
            return False
        return link.parent in self.empty or link.parent == table.name or self.circular(table, link)

    def refused(self) -> bool:
        return any(
            link.needed and self.cleared(table, link)
            for table in self.tables.values()
            if table.name not in self.empty
            for link in table.links.values()
        )

    def taken(self) -> Rows:
        found: Rows = {}
        for table in self.tables.values():
            kind, number = table.rule
            rows = [] if table.name in self.empty else table.rows
            if kind == "where":
                rows = [row for row in rows if isinstance(row["n"], int) and row["n"] > number]
            if kind == "last":
                newest = sorted((row["n"] for row in rows if isinstance(row["n"], int)), reverse=True)[:number]
                rows = [row for row in rows if isinstance(row["n"], int) and newest and row["n"] >= newest[-1]]
            found[table.name] = rows
        while True:
            fewer = {
                table.name: [row for row in found[table.name] if self._finds(table, row, found)]
                for table in self.tables.values()
            }
            if fewer == found:
                return self._cleared(found)
            found = fewer

    def _finds(self, table: Made, row: Row, found: Rows) -> bool:
        return all(
            row[name] is None
            or self.cleared(table, link)
            or any(one[link.target] == row[name] for one in found[link.parent])
            for name, link in table.links.items()
        )

    def _cleared(self, found: Rows) -> Rows:
        made: Rows = {}
        for table in self.tables.values():
            made[table.name] = []
            for row in found[table.name]:
                new = dict(row)
                for name, link in table.links.items():
                    there = any(one[link.target] == row[name] for one in found[link.parent])
                    if self.cleared(table, link) and (self.circular(table, link) or not there):
                        new[name] = None
                    elif link.by_name and isinstance(new[name], str):
                        new[name] = digest(str(new[name]))
                new["name"] = digest(str(new["name"]))
                made[table.name].append(new)
        return made


def digest(text: str) -> str:
    return hashlib.sha256(f"{KEY}:hash:{text}".encode()).hexdigest()[:20]


# --- what is generated -----------------------------------------------------------------------------


@st.composite
def databases(draw: st.DrawFn) -> dict[str, Made]:
    names = [f"t{number}" for number in range(draw(st.integers(1, 4)))]
    numbers = {name: range(1, draw(st.integers(0, 6)) + 1) for name in names}
    tables = {}
    for name in names:
        links = {}
        for number in range(draw(st.integers(0, 2))):
            parent = draw(st.sampled_from(names))
            needed = draw(st.booleans()) and len(numbers[parent]) > 0
            links[f"r{number}"] = Link(parent, draw(st.booleans()), needed)
        rows: list[Row] = []
        for number in numbers[name]:
            row: Row = {"id": number, "name": f"Raw-{name}-{number}", "n": draw(st.none() | st.integers(0, 5))}
            for column, link in links.items():
                if not numbers[link.parent] or (not link.needed and draw(st.integers(0, 3)) == 0):
                    row[column] = None
                else:
                    other = draw(st.sampled_from(numbers[link.parent]))
                    row[column] = f"Raw-{link.parent}-{other}" if link.by_name else other
            rows.append(row)
        kind = draw(st.sampled_from(("all", "all", "where", "last", "none", "cascade")))
        tables[name] = Made(name, links, rows, (kind, draw(st.integers(1, 3))))
    return tables


def create(path: Path, tables: dict[str, Made]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for one in tables.values():
            columns = ["id INTEGER PRIMARY KEY", "name TEXT NOT NULL UNIQUE", "n INT"]
            for name, link in one.links.items():
                needed = " NOT NULL" if link.needed else ""
                type_ = "TEXT" if link.by_name else "INT"
                columns.append(f"{name} {type_}{needed} REFERENCES {link.parent} ({link.target})")
            connection.execute(f"CREATE TABLE {one.name} ({', '.join(columns)})")
            for row in one.rows:
                places = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {one.name} ({', '.join(row)}) VALUES ({places})", [*row.values()])


def text_of(tables: dict[str, Made]) -> str:
    found = ["[columns]\nname = 'hash'\n"]
    forms = {
        "all": "",
        "where": "where = 'n > {0}'",
        "last": "last = {0}\nby = 'n'",
        "none": "rows = 'none'",
        "cascade": "rows = 'none'\ncascade = true",
    }
    for one in tables.values():
        kind, number = one.rule
        found.append(f"[tables.{one.name}]\n{forms[kind].format(number)}\n")
    return "".join(found)


# --- both ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders() -> Iterator[Iterator[Path]]:
    folder = make_folder()
    yield (folder / str(number) for number in count())
    remove_folder(folder)


def decided(path: Path, text: str) -> Decided:
    schema = SanitizingJob(path).handle(AskSchema())
    assert isinstance(schema, Schema)
    return decide(schema, rules.parse(text, "sanitize.toml", str), {}, quoted)


def sanitized(path: Path, made: Decided) -> Rows:
    target = path.with_suffix(".new")
    SanitizingJob(path).handle(AskCopy(made.plan, KEY, target))
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.row_factory = sqlite3.Row
        return {
            one.name: [dict(row) for row in connection.execute(f"SELECT * FROM {one.name} ORDER BY id")]
            for one in made.plan.schema.tables
        }


@given(databases())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_copy_is_what_the_reference_says(folders: Iterator[Path], tables: dict[str, Made]) -> None:
    path = next(folders)
    create(path, tables)
    reference = Reference(tables)
    made = decided(path, text_of(tables))
    assert bool(made.problems) == reference.refused(), made.problems
    if not made.problems:
        assert sanitized(path, made) == reference.taken()


def table(name: str, rule: tuple[str, int], rows: list[Row], **links: Link) -> Made:
    return Made(
        name,
        links,
        [{"id": number, "name": f"Raw-{name}-{number}", "n": number} | row for number, row in enumerate(rows, 1)],
        rule,
    )


def outcome(folders: Iterator[Path], *tables: Made) -> Rows:
    path = next(folders)
    create(path, {one.name: one for one in tables})
    made = decided(path, text_of({one.name: one for one in tables}))
    assert made.problems == ()
    found = sanitized(path, made)
    return {
        name: [{key: value for key, value in row.items() if key[0] in "ir"} for row in rows]
        for name, rows in found.items()
    }


def test_children_follow_over_several_tables(folders: Iterator[Path]) -> None:
    found = outcome(
        folders,
        table("a", ("where", 2), [{}, {}, {}]),
        table("b", ("all", 0), [{"r": 1}, {"r": 3}, {"r": None}], r=Link("a", False, False)),
        table("c", ("all", 0), [{"r": 1}, {"r": 2}, {"r": 3}], r=Link("b", False, True)),
    )
    assert found["b"] == [{"id": 2, "r": 3}, {"id": 3, "r": None}]
    assert found["c"] == [{"id": 2, "r": 2}, {"id": 3, "r": 3}]


def test_a_reference_to_the_own_table_is_cleared_where_its_row_is_gone(folders: Iterator[Path]) -> None:
    tree = table("a", ("last", 2), [{"r": None}, {"r": 1}, {"r": 1}, {"r": 3}], r=Link("a", False, False))
    assert outcome(folders, tree)["a"] == [{"id": 3, "r": None}, {"id": 4, "r": 3}]


def test_tables_that_refer_in_a_circle_keep_their_rows(folders: Iterator[Path]) -> None:
    found = outcome(
        folders,
        table("hen", ("where", 1), [{"r": 1}, {"r": 2}], r=Link("egg", False, False)),
        table("egg", ("all", 0), [{"r": 1}, {"r": 2}], r=Link("hen", False, False)),
    )
    assert found == {"hen": [{"id": 2, "r": None}], "egg": [{"id": 1, "r": None}, {"id": 2, "r": None}]}


def test_what_cannot_be_cleared_is_refused_by_name(folders: Iterator[Path]) -> None:
    path = next(folders)
    tables = {
        "a": table("a", ("none", 0), [{}]),
        "b": table("b", ("all", 0), [{"r": 1}], r=Link("a", False, True)),
    }
    create(path, tables)
    assert decided(path, text_of(tables)).problems == (
        "b: refers to rows of a that are left out, by r, which cannot be NULL;"
        " leave out rows of b too or set `cascade = true`",
    )
