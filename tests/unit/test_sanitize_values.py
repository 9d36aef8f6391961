"""What the methods make of odd values: never the value itself, and never an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.sanitize.deciding import DatabasePlan
from holdfast.sanitize.methods import (
    AnyMethod,
    Choice,
    Date,
    Email,
    Hash,
    Ip,
    Json,
    Mask,
    Number,
    Phone,
    Pick,
    Text,
    Uuid,
)
from holdfast.sanitize.schema import Column, Schema
from holdfast.sanitize.values import Value, Values

PLAN = DatabasePlan(Schema("sqlite", ()), (), "sane.test", "+1555#######", (), 20)
VALUES = Values(PLAN, "c0ffee" * 10)
COLUMN = Column("x", "text", "text")
ANY = st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.characters(categories=["Cs"]))


def made(method: AnyMethod, value: Value) -> Value:
    return VALUES.function(COLUMN, method)(value)


@given(ANY)
def test_any_value_gets_another_one_that_is_the_same_each_time(value: Value) -> None:
    for method in (Hash(), Email(), Pick("city", "city"), Text(), Phone(), Mask(), Uuid(), Ip(), Choice(("a", "b"))):
        found = made(method, value)
        assert isinstance(found, str) and found == made(method, value)
        assert not isinstance(value, str) or len(value) < 13 or set(value) <= set("*") or value not in found
    for other in (Date(), Date("now"), Date("shift", 9), Json({"a": Hash()}), Number(bucket=7), Number(noise=3)):
        if not isinstance(value, float) or value - value == 0:
            made(other, value)


@pytest.mark.parametrize(
    ("text", "year", "month"),
    [
        ("2020-02-03", "2020-01-01", "2020-02-01"),
        ("2020-02-03 04:05:06.789", "2020-01-01 00:00:00.000", "2020-02-01 00:00:00.000"),
        ("2020-02-03T04:05Z", "2020-01-01T00:00Z", "2020-02-01T00:00Z"),
        ("2020-02-03 04:05:06-05:00", "2020-01-01 00:00:00-00:00", "2020-02-01 00:00:00-00:00"),
        ("2020-02-30", None, None),
        ("2020-02-03 04:05:06 by Bob", None, None),
        ("2020-02-03Bob", None, None),
        ("Bob", None, None),
        ("", None, None),
    ],
)
def test_what_is_no_date_becomes_null(text: str, year: str | None, month: str | None) -> None:
    assert (made(Date("year"), text), made(Date("month"), text)) == (year, month)
    shifted = made(Date("shift", 30), text)
    assert (shifted is None) == (year is None)
    assert shifted is None or (isinstance(shifted, str) and shifted[10:] == text[10:])


@pytest.mark.parametrize(
    ("source", "other", "expected"),
    [
        ('{"a": {"b": "Raw", "c": 1}, "d": "Raw"}', "drop", '{"a":{"b":"***"}}'),
        ('{"a": {"b": "Raw", "c": 1}, "d": "é"}', "keep", '{"a":{"b":"***","c":1},"d":"é"}'),
        ('{"a": {"b": null}}', "drop", '{"a":{"b":null}}'),
        ('{"a": {"b": [1]}}', "drop", '{"a":{"b":"***"}}'),
        ('{"a": "Raw"}', "drop", '{"a":{}}'),
        ('["Raw"]', "drop", "{}"),
        ('{"d": "\\ud800"}', "keep", '{"d":"\\ud800"}'),
        ("no JSON, Raw", "keep", None),
    ],
)
def test_values_inside_of_json(source: str, other: str, expected: str | None) -> None:
    found = made(Json({"a.b": Mask()}, "keep" if other == "keep" else "drop"), source)
    assert found == expected
    if isinstance(found, str):
        json.loads(found.encode())
