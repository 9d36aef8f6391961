"""What happens to each column: which rule counts, and what is refused before any row is read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
import pytest

from holdfast.sanitize import rules
from holdfast.sanitize.deciding import DatabasePlan, Decided, decide, described, width_for
from holdfast.sanitize.detector import CONTENT_PATTERNS, Content
from holdfast.sanitize.methods import AnyMethod, Date, Hash, Json, Keep, Mask, Null, Set, Text
from holdfast.sanitize.schema import Column, Kind, Reference, Schema, Table


def column(name: str, kind: Kind = "text", **more: object) -> Column:
    return msgspec.convert({"name": name, "type": kind, "kind": kind, **more}, Column)


def with_options(more: Mapping[str, object]) -> Column:
    return msgspec.convert({"name": "x", "type": "text", "kind": "text", **more}, Column)


def table(name: str, *columns: Column, refers: Mapping[str, str] | None = None, rows: int = 100) -> Table:
    references = []
    for here, place in (refers or {}).items():
        parent, there = place.split(".")
        references.append(Reference((here,), parent, (there,)))
    return Table(name, "", name, columns, tuple(references), rows=rows)


ID = column("id", "integer", unique=True, nullable=False)
USERS = table("users", ID, column("mail", unique=True), column("plan"), column("verified", "boolean"))
ORDERS = table("orders", ID, column("buyer"), column("amount", "number"), refers={"buyer": "users.mail"})


def deciding(text: str, *tables: Table, contents: Mapping[str, Content] | None = None) -> Decided:
    known = {f"{one.name}.{each.name}": Content(9, {"email": 0}) for one in tables for each in one.columns} | dict(
        contents or {}
    )
    found = rules.parse(text, "sanitize.toml", lambda _: "")
    return decide(Schema("sqlite", tables), found, known, lambda name: f'"{name}"')


def line(found: Decided, place: str) -> str:
    assert found.problems == ()
    return found.plan.lines()[place]


def why(plan: DatabasePlan, table: str, column: str) -> str:
    return next(
        one.why for of in plan.tables if of.table.name == table for one in of.columns if one.column.name == column
    )


@pytest.mark.parametrize(
    ("text", "expected", "reason"),
    [
        ('[columns]\nmail="email"\n[tables.users.columns]\nmail="hash"', "text: hash (domain = hash)", "rule of the"),
        ('[columns]\nmail="email"\n[tables.users]', "text: email (domain = email)", "rule of columns"),
        (
            'unlisted_columns="keep"\n[columns]\nmail="email"\n[tables.users.columns]\nmail=false',
            "text: keep",
            "nothing says",
        ),
        ('[columns]\nmail="email"\n"*m*"="hash"\n[tables.users]', "text: email (domain = email)", "rule of columns"),
        ('unlisted_columns="keep"\n[tables.users]', "text: keep", "nothing says"),
        ('[tables."u*".columns]\nmail="hash"', "text: hash (domain = hash)", "rule of the table"),
    ],
)
def test_a_rule_of_the_table_counts_before_a_pattern(text: str, expected: str, reason: str) -> None:
    found = deciding(text, USERS)
    assert line(found, "users.mail") == expected
    assert why(found.plan, "users", "mail").startswith(reason)


def test_a_reference_follows_its_parent_over_several_tables() -> None:
    notes = table("notes", column("of"), refers={"of": "orders.buyer"})
    found = deciding('[columns]\nmail="email"\n[tables.users]\n[tables.orders]\n[tables.notes]', USERS, ORDERS, notes)
    assert line(found, "orders.buyer") == line(found, "notes.of") == "text: email (domain = email)"
    assert why(found.plan, "notes", "of") == "as orders.buyer, to which it refers"


def test_tables_that_refer_in_a_circle_end() -> None:
    a = table("a", column("x", unique=True), refers={"x": "b.y"})
    b = table("b", column("y", unique=True), refers={"y": "a.x"})
    assert line(deciding('[tables.a.columns]\nx="hash"\n[tables.b]', a, b), "b.y") == "text: hash (domain = hash)"
    flagged = {"a.x": Content(5, {"email": 2}), "b.y": Content(5, {"email": 2})}
    found = deciding("[tables.a]\n[tables.b]", a, b, contents=flagged)
    assert [one.split(":")[0] for one in found.problems] == ["a.x", "b.y"], "neither hides behind the other"


TABLES = "[tables.users]\n[tables.orders]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[tables.orders]", "users: no rules for this table"),
        (TABLES, "users.mail: no rule, and its name, mail may mean personal data"),
        (TABLES + "[tables.user]", "user: no table of that name, though there are rules for it"),
        (TABLES + '[tables.users.columns]\nmial="email"', "users.mial: no such column, though there is a rule for it"),
        ('[tables."*".columns]\nmial="email"', "*.mial: no such column in any of these tables, though there is a"),
        (TABLES + '[tables.users.columns]\nmail="first_name"', "users.mail: its values are unique, which pick does"),
        (TABLES + '[tables.users.columns]\nmail={set="x"}', "users.mail: its values are unique, which set does not"),
        (TABLES + '[tables.users.columns]\nmail={sql="x"}', "users.mail: sql needs `unique = true` for a column"),
        (TABLES + '[tables.users.columns]\nid="null"', "users.id: null is not for a column that is NOT NULL"),
        (TABLES + '[tables.users.columns]\nid="hash"', "users.id: hash is for columns of text, not for integer"),
        (TABLES + '[tables.orders.columns]\namount={set="x"}', "orders.amount: set: 'x' is no number, as number needs"),
        (
            TABLES + '[tables.orders.columns]\nbuyer="hash"',
            "orders.buyer: refers to users.mail, which is kept; its own",
        ),
        (
            '[columns]\nmail="email"\n' + TABLES + '[tables.orders.columns]\nbuyer="hash"',
            "orders.buyer: refers to users.mail, which has email (domain = email); its own rule, hash",
        ),
        (
            '[columns]\nmail="email"\n' + TABLES + '[tables.orders.columns]\nbuyer={keep="x"}',
            "orders.buyer: refers to users.mail, which has email (domain = email); its own rule, keep, would",
        ),
        (
            '[tables.users]\nexempt="plan = 1"\ncolumns={mail="email"}\n[tables.orders]',
            "orders.buyer: refers to users.mail, and rows that are exempt keep the value of one side only",
        ),
        (TABLES + '[tables.users]\nlast=3\nby="idd"', "users.idd: no such column, though `by` names it"),
        ('unlisted_columns="error"\n' + TABLES, "users.verified: no rule"),
    ],
)
def test_what_is_not_decided_or_does_not_fit_is_refused(text: str, problem: str) -> None:
    if text.count("[tables.users]\n") > 1 or (".users.columns]" in text and "[tables.users]" in text):
        text = text.replace("[tables.users]\n", "", 1)
    if ".orders.columns]" in text:
        text = text.replace("[tables.orders]\n", "", 1)
    found = deciding(text, USERS, ORDERS)
    assert any(one.startswith(problem) for one in found.problems), found.problems


def test_a_reference_may_be_null_where_its_parent_is_changed() -> None:
    text = '[tables.users.columns]\nmail="email"\n[tables.orders.columns]\nbuyer="null"'
    assert line(deciding(text, USERS, ORDERS), "orders.buyer") == "text: null"


def test_a_column_with_two_parents_of_different_rules_is_refused() -> None:
    a, b = (table(name, column("x", unique=True)) for name in "ab")
    child = Table("c", "", "c", (column("x"),), (Reference(("x",), "a", ("x",)), Reference(("x",), "b", ("x",))))
    text = '[tables.c]\n[tables.a.columns]\nx="hash"\n[tables.b.columns]\nx='
    assert deciding(text + '"hash"', a, b, child).problems == ()
    (problem,) = deciding(text + '"email"', a, b, child).problems
    assert problem.startswith("c.x: refers to b.x, which has email")


def test_digests_of_both_sides_of_a_reference_have_the_same_width() -> None:
    parent = table("a", column("x", unique=True, length=16), rows=10)
    child = table("b", column("x"), refers={"x": "a.x"})
    (problem,) = deciding('[tables.b]\n[tables.a.columns]\nx="hash"', parent, child).problems
    assert problem.startswith("b.x: refers to a.x, where the digest has 16 digits, but 20 fit into text")
    assert deciding("[tables.b]\n[tables.a.columns]\nx={hash=12}", parent, child).problems == ()


@pytest.mark.parametrize(
    ("more", "rows", "rule", "problem"),
    [
        ({"unique": True}, 10**6, '"hash"', ""),
        ({"unique": True}, 10**6, "{hash=14}", "14 digits are too few for 1000000 different values; at least 15 are"),
        ({"unique": True}, 10**6, "{hash=15}", ""),
        ({"in_key": True}, 10**6, "{hash=14}", "14 digits are too few for 1000000 different values; at least 15 are"),
        ({}, 10**6, "{hash=8}", ""),
        ({"length": 12}, 10, "{hash=16}", "hash (width = 16, domain = hash) does not fit into text"),
        ({"length": 18, "unique": True}, 10, '"email"', "email (domain = email) does not fit into text"),
        ({"length": 24, "unique": True}, 10**6, '"email"', "6 digits are too few"),
        ({"length": 11}, 10, '"phone"', "the mask +1555####### is longer than text"),
        ({"length": 12}, 10, '"phone"', ""),
        ({"in_key": True}, 10, '"city"', "it is part of a key whose values are unique, which pick may not keep"),
        ({"length": 35}, 10, '"uuid"', "uuid needs 36 characters; text has fewer"),
    ],
)
def test_width_is_compared_with_rows_and_room(more: dict[str, object], rows: int, rule: str, problem: str) -> None:
    found = deciding(f"[tables.t.columns]\nx = {rule}", table("t", with_options(more), rows=rows))
    assert [one.startswith(f"t.x: {problem}") for one in found.problems] == ([True] if problem else []), found.problems


def test_a_wider_digest_is_taken_for_more_rows() -> None:
    assert [width_for(rows) for rows in (0, 10, 10**6, 10**9)] == [6, 7, 15, 20]
    assert deciding("[tables.t]", table("t", column("x"), rows=10**11)).plan.digits == 24


@pytest.mark.parametrize("policy", ["error", "flagged", "keep"])
@pytest.mark.parametrize("tables", ["error", "empty", "keep"])
def test_policies(policy: str, tables: str) -> None:
    text = f'unlisted_columns = "{policy}"\nunlisted_tables = "{tables}"'
    found = deciding(text, table("t", column("email"), column("x", "integer")))
    expected = ["t: no rules for this table"] if tables == "error" else []
    if tables != "empty":
        expected += {"error": ["t.email: no rule, and", "t.x: no rule"], "flagged": ["t.email: no rule, and"]}.get(
            policy, []
        )
    assert len(found.problems) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found.problems, expected, strict=True))
    assert found.plan.tables[0].empty is (tables == "empty")


def test_a_column_may_be_called_like_a_method_or_a_setting() -> None:
    named = table("t", *(column(name) for name in ("rows", "hash", "where", "columns", "keep")))
    text = (
        '[tables.t]\nrows="all"\n[tables.t.columns]\nrows="text"\nhash="hash"\nwhere="mask"\ncolumns="keep"\nkeep="ip"'
    )
    lines = deciding(text, named).plan.lines()
    assert [lines[f"t.{name}"] for name in ("rows", "where", "keep")] == [
        *("text: text", "text: mask", "text: ip (domain = ip)")
    ]


def test_a_pattern_that_does_not_fit_is_not_passed_over() -> None:
    one = table(
        *("t", column("sort_key", nullable=False), column("emails_sent", "integer"), column("email_ok", "boolean"))
    )
    found = deciding('[columns]\n"*_key"="null"\n"*email*"="email"\n[tables.t]', one)
    (problem,) = found.problems
    assert problem.startswith("t.sort_key: null is not for a column that is NOT NULL, which columns of that name have")
    exact = deciding('[columns]\nemails_sent="email"\n[tables.t.columns]\nsort_key="keep"', one)
    assert exact.problems[0].startswith("t.emails_sent: email is for columns of text, not for integer")


def test_what_is_computed_or_emptied_needs_no_rule() -> None:
    one = table("t", column("email", generated=True), column("x", "integer"))
    assert deciding("[tables.t]", one).problems == ()
    assert deciding('[tables.t]\ncolumns={email="email"}', one).problems == (
        "t.email: the server computes it; it has no rule of its own",
    )
    assert deciding('[tables.users]\nrows="none"', USERS).problems == ()


def test_an_unknown_content_counts_as_personal() -> None:
    found = deciding("[tables.t]", table("t", column("x")), contents={"t.x": Content(0)})
    assert found.problems == ("t.x: no rule, and no value to look at may mean personal data",)
    refers = table("t", column("x"), refers={"x": "gone.x"})
    assert deciding("[tables.t]", refers, contents={"t.x": Content(0)}).problems == found.problems


def test_the_lock_tells_rules_apart() -> None:
    methods: list[AnyMethod] = [
        *(Json({"a": one}) for one in (Null(), Keep(), Text(), Mask(), Hash(9))),
        *(Set(one) for one in (0, "", False, "0")),
        *(Date(), Date("month"), Json({}), Json({}, "keep")),
    ]
    assert len({described(one) for one in methods}) == len(methods)
    rule = '[tables.users]\ncolumns={mail="email"}\n'
    assert line(deciding(rule + 'exempt="plan = 1"', USERS), "users") == "all rows, unchanged where plan = 1"
    assert line(deciding(rule, USERS), "users") == "all rows"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("+49 30 1234567", "phone"),
        ("(030) 123-4567", "phone"),
        ("030/1234567", "phone"),
        ("555-123-4567", "phone"),
        ("000100010001", None),
        ("2024-01-02", None),
        ("2024-01-02 10:00", None),
        ("Ada.Lovelace@company.example", "email"),
        ("192.0.2.1", "ip"),
        ("DE02120300000000202051", "iban"),
    ],
)
def test_what_values_look_like(text: str, what: str | None) -> None:
    found = [name for name, pattern in CONTENT_PATTERNS.items() if re.search(pattern, text)]
    assert (found[0] if found else None) == what
