"""Durations as operators write them."""

from __future__ import annotations

import time

import pytest

from holdfast.config.schema.section import seconds_of
from holdfast.reports.maintenance import status_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1d2h30m", 95400),
        ("1d2h30m5s", 95405),
        ("2h5s", 7205),
        ("0m", 0),
        ("90m", 5400),
        ("", None),
        ("30", None),
        ("m", None),
        ("2h1d", None),
        ("1h1h", None),
        ("1.5h", None),
        ("-1h", None),
        ("1h 30m", None),
        (" 1h", None),
        ("1h\n", None),
        ("1w", None),
        ("٣h", None),
        ("9999999999d", None),
    ],
)
def test_a_duration_has_days_hours_minutes_and_seconds_in_this_order(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


def test_a_hold_that_is_overdue_says_by_how_much() -> None:
    hold = {"by": "ann", "since": "2026-01-01T00:00:00Z", "comment": "disks", "until": 1_767_226_200}
    assert status_of(hold, now=1_767_226_199).overdue_seconds == 0
    assert status_of(hold, now=1_767_226_199).text.endswith("disks; until 2026-01-01T00:10:00Z")
    over = status_of(hold, now=1_767_226_200 + 95_400)
    assert (over.overdue_seconds, over.text.endswith("overdue by 1d2h30m")) == (95_400, True)
    assert status_of({"by": "ann", "since": "x", "until": time.time() - 5}).text.endswith("overdue by 5s")
    assert status_of({"by": "ann", "since": "x"}).text == "closed by ann since x: no comment"
