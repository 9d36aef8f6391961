"""What an engine says of one container, as the rest calls it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from holdfast.containers.container import Container


def known(began: str, **state: Any) -> dict[str, Any]:
    return {
        "Id": "1",
        "Image": "sha256:a",
        "Config": {"Labels": {}},
        "State": {"Running": True, "Status": "running", "Pid": 7, "StartedAt": began, **state},
    }


@pytest.mark.parametrize("ending", ["Z", "+00:00", "elsewhere"])
def test_how_long_it_runs_is_told_to_less_than_a_second(ending: str) -> None:
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=2.5)
    if ending == "elsewhere":
        text = began.astimezone(datetime.timezone(datetime.timedelta(hours=9))).strftime(
            "%Y-%m-%dT%H:%M:%S.%f789+09:00"
        )
    else:
        text = began.strftime("%Y-%m-%dT%H:%M:%S.%f789") + ending
    uptime = Container(known(text), "web-r1", "r1", "").status().uptime_seconds
    assert 2.5 <= uptime < 2.5 + 30


def test_what_cannot_be_read_counts_as_just_begun() -> None:
    assert Container(known("never"), "web-r1", "r1", "").status().uptime_seconds == 0.0
    assert Container(known("2026-01-01T00:00:00Z", Running=False), "web-r1", "r1", "").status().uptime_seconds == 0.0
