"""The rules of sanitize.toml: every form of every method, all problems at once, presets."""

from __future__ import annotations

import pytest

from holdfast.config.load import sanitizing_presets
from holdfast.errors import ConfigurationError
from holdfast.sanitize import rules
from holdfast.sanitize.methods import (
    DICTIONARIES,
    AnyMethod,
    Choice,
    Date,
    Email,
    File,
    Hash,
    Ip,
    Json,
    Keep,
    Mask,
    Null,
    Number,
    Phone,
    Pick,
    Set,
    Sql,
    Text,
    Uuid,
)
from holdfast.sanitize.rules import Rules, TableRules


def parsed(text: str, **presets: str) -> Rules:
    return rules.parse(text, "sanitize.toml", lambda name: presets[name])


def problems(text: str, **presets: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        parsed(text, **presets)
    return caught.value.problems


def method(text: str) -> AnyMethod | None:
    return parsed(f"[columns]\na = {text}").columns["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"keep"', Keep()),
        ('{ keep = "a reason" }', Keep("a reason")),
        ('"null"', Null()),
        ("{ null = true }", Null()),
        ("{ set = '' }", Set("")),
        ("{ set = false }", Set(False)),
        ("{ set = 1.5 }", Set(1.5)),
        ('"hash"', Hash()),
        ("{ hash = 8 }", Hash(8)),
        ('{ hash = 16, domain = "vat" }', Hash(16, "vat")),
        ('{ hash = true, domain = "vat" }', Hash(0, "vat")),
        ('"email"', Email()),
        ('{ email = true, domain = "staff" }', Email("staff")),
        *((f'"{one}"', Pick(one, one)) for one in DICTIONARIES),
        ('{ city = true, domain = "d" }', Pick("city", "d")),
        ('"text"', Text()),
        ('"phone"', Phone()),
        ('{ phone = "+49 (30) ####" }', Phone("+49 (30) ####")),
        ('"mask"', Mask()),
        ("{ mask = { left = 1, right = 2 } }", Mask(1, 2)),
        ('"date"', Date("year")),
        ('{ date = "month" }', Date("month")),
        ('{ date = "now" }', Date("now")),
        ("{ date = { shift = 30 } }", Date("shift", 30)),
        ("{ number = { bucket = 100 } }", Number(bucket=100)),
        ('{ number = { noise = 5 }, domain = "n" }', Number(noise=5, domain="n")),
        ('"uuid"', Uuid()),
        ('{ uuid = true, domain = "u" }', Uuid("u")),
        ('"ip"', Ip()),
        ('{ choice = ["a", 2] }', Choice(("a", "2"))),
        ('"file"', File()),
        ('{ file = "pdf" }', File("pdf")),
        (
            '{ json = { "a.b" = "email", c = { hash = 9 } }, other = "keep" }',
            Json({"a.b": Email(), "c": Hash(9)}, "keep"),
        ),
        ("{ json = {} }", Json({})),
        ('{ sql = "a || b" }', Sql("a || b")),
        ('{ sql = "id", unique = true }', Sql("id", True)),
        ("false", None),
    ],
)
def test_every_form_of_a_method_is_read(text: str, expected: AnyMethod | None) -> None:
    assert method(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('"emial"', "there is no method 'emial'. Did you mean email?"),
        ('"json"', 'json needs more, as a table such as { json = { "path.to" = "email" } }'),
        ('"sql"', 'sql needs more, as a table such as { sql = "EXPRESSION" }'),
        ('"number"', "number needs more, as a table such as { number = { bucket = 100 } }"),
        ("3", "must be the name of a method, or a table with one"),
        ("true", "must be the name of a method, or a table with one"),
        ('{ hash = 16, email = "" }', "needs one method, not 2"),
        ("{ keep = 1 }", "keep: is followed by the reason, as text"),
        ('{ null = "x" }', "null: takes no value; write null = true"),
        ('{ email = "own.example" }', "email: takes no value; write email = true"),
        ('{ text = 5, domain = "x" }', "domain: is not known."),
        ("{ set = [1] }", "set: must be text, a number or a truth value"),
        ("{ set = nan }", "set: must be a finite number"),
        ('{ set = "\\u0000" }', "set: must not contain the character 0"),
        ("{ hash = 7 }", "hash: must be a whole number from 8 to 64"),
        ("{ hash = 65 }", "hash: must be a whole number from 8 to 64"),
        ('{ hash = 16, doman = "vat" }', "doman: is not known. Did you mean domain?"),
        ('{ hash = 16, domain = "a b" }', "domain: must be a short name of letters, digits, - and _"),
        ('{ phone = "0123" }', "phone: is followed by a mask, such as +1555#######"),
        ('{ phone = "tel ###" }', "phone: is followed by a mask, such as +1555#######"),
        ("{ mask = 3 }", "mask: must be a table such as { left = 1, right = 2 }"),
        ("{ mask = { left = -1 } }", "left: must be a whole number from 0 to 100"),
        ("{ mask = { lft = 1 } }", "lft: is not known. Did you mean left?"),
        ('{ date = "day" }', "date: must be now, year, month or { shift = DAYS }"),
        ("{ date = { shift = 0 } }", "shift: must be a whole number from 1 to 100000"),
        ("{ number = 5 }", "number: must be { bucket = SIZE } or { noise = PERCENT }"),
        ("{ number = { bucket = 1, noise = 1 } }", "number: must be { bucket = SIZE } or { noise = PERCENT }"),
        ("{ number = { noise = 101 } }", "noise: must be a whole number from 1 to 100"),
        ("{ choice = [] }", "choice: must be a list of values"),
        ("{ choice = [true] }", "choice: must be a list of values"),
        ('{ file = "gif" }', "file: must be empty, png or pdf"),
        ("{ json = 1 }", 'json: must be a table of paths, such as { "address.street" = "street" }'),
        ('{ json = {}, other = "x" }', "other: must be drop or keep"),
        ("{ sql = ' ' }", "sql: must be an expression"),
        ('{ sql = "x", unique = "yes" }', "unique: must be true or false"),
    ],
)
def test_a_wrong_form_is_explained(text: str, problem: str) -> None:
    assert problems(f"[columns]\na = {text}") == (f"columns.a: {problem}",)


def test_a_table_without_a_method_lists_them() -> None:
    (problem,) = problems("[columns]\na = { doman = 1 }")
    assert problem.startswith("columns.a: needs one method, not 0; known are choice, city, company, date, email,")


def test_all_problems_come_at_once() -> None:
    text = """
    unlisted_table = "keep"
    unlisted_columns = "all"
    consistency = 1
    email_domain = "Example"
    allowed_email_domains = ["firm.example", "@firm.example", "FIRM.example"]
    phone_mask = "x##"
    tables.a = 3
    [tables.b]
    rows = "some"
    wher = "x"
    where = "a = 1; DROP TABLE b"
    last = -1
    cascade = "no"
    columns = 4
    [tables.c]
    last = 5
    cascade = true
    [tables.c.columns]
    j = { json = { "a.b" = "emial" } }
    """
    assert problems(text) == (
        "unlisted_table: is not known. Did you mean unlisted_tables?",
        "email_domain: 'Example' is not a domain in lower case, such as example.test",
        "allowed_email_domains: '@firm.example' is not a domain in lower case, such as example.test",
        "allowed_email_domains: 'FIRM.example' is not a domain in lower case, such as example.test",
        "phone_mask: 'x##' needs `#` for digits, and nothing but digits and +-(). beside",
        "unlisted_columns: must be one of flagged, error, keep",
        "consistency: must be one of project, run",
        'tables."a": must be a table',
        'tables."b".wher: is not known. Did you mean where?',
        'tables."b".last: must be a number of rows',
        'tables."b".rows: must be one of all, none',
        'tables."b".where: is one condition, without a semicolon',
        'tables."b".cascade: must be true or false',
        'tables."b".columns: must be a table',
        "tables.\"c\".columns.j.a.b: there is no method 'emial'. Did you mean email?",
        'tables."c": `last` and `by` go together: how many rows, and by which column',
        'tables."c".cascade: is only for rows = "none"',
    )


def test_text_that_is_no_toml_names_its_file() -> None:
    with pytest.raises(ConfigurationError, match=r"sanitize\.toml is not valid TOML"):
        parsed("a = ")
    with pytest.raises(ConfigurationError, match="preset:shop is not valid TOML"):
        parsed('extends = ["preset:shop"]', shop="a = ")
    assert problems('extends = ["shop"]') == ("extends: 'shop' is not preset:NAME",)


SHOP = """
email_domain = "shop.test"
[columns]
"*email*" = "email"
"*_token" = "null"
[tables.users]
where = "active"
[tables.users.columns]
name = "name"
phone = "phone"
[tables.sessions]
rows = "none"
"""
OWN = """
extends = ["preset:shop", "preset:more"]
[columns]
"*_token" = false
[tables.users.columns]
name = false
city = "city"
[tables]
sessions = false
"""


def test_a_later_file_replaces_rules_one_by_one_and_removes_them_by_false() -> None:
    found = parsed(OWN, shop=SHOP, more='[tables.users.columns]\nphone = "text"\n[tables.carts]\nrows = "none"')
    assert found.email_domain == "shop.test"
    assert found.columns == {"*email*": Email(), "*_token": None}
    assert found.tables == {
        "users": TableRules(where="active", columns={"name": None, "phone": Text(), "city": Pick("city", "city")}),
        "carts": TableRules(rows="none"),
    }
    assert found.by_name("reset_token") is None
    assert found.of_presets == {"users.phone", "carts"}


def test_the_longest_pattern_counts_and_an_exact_name_before_all() -> None:
    found = parsed(
        '[columns]\n"*"="keep"\n"*mail*"="email"\n"mail_TO*"="text"\n'
        '[tables."shop_*"]\nlast=1\nby="a"\n[tables."*"]\nrows="none"\n[tables.shop_x]'
    )
    assert [found.by_name(one) for one in ("x", "Email", "mail_to_x")] == [Keep(), Email(), Text()]
    assert found.of_table("shop_y") == TableRules(last=1, by="a")
    assert found.of_table("shop_x") == TableRules()
    assert found.of_table("other") == TableRules(rows="none")
    assert parsed("").of_table("x") is None and parsed("").by_name("x") is None


@pytest.mark.parametrize("name", sorted(sanitizing_presets()))
def test_every_packaged_preset_is_read(name: str) -> None:
    found = rules.parse(f'extends = "preset:{name}"', "sanitize.toml", sanitizing_presets().__getitem__)
    assert found.tables and found.of_presets >= set(found.tables)
