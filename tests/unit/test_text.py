"""Sizes, ages, local times, and text that cannot control a terminal."""

from __future__ import annotations

import time

import pytest

from holdfast.cli.text import ago, cut, human_bytes, human_part, human_seconds, local_minute, local_time, visible


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (59, "just now"), (61, "1 minute ago"), (3 * 3600 + 5, "3 hours ago"), (200_000, "2 days ago"),
     (20 * 86_400, "2 weeks ago"), (800 * 86_400, "2 years ago"), (-5, "just now")],
)  # fmt: skip
def test_an_age_is_in_words(seconds: int, words: str) -> None:
    assert ago("2026-11-30T02:12:22Z", 1_796_004_742 + seconds) == words


def test_a_time_is_local_and_says_so(berlin: None) -> None:
    assert local_time("2026-07-30T02:12:22Z") == "2026-07-30 04:12:22 CEST"
    assert local_time("2026-11-30T02:12:22Z") == "2026-11-30 03:12:22 CET"
    assert len(local_minute("2026-11-30T02:12:22Z")) == len("2026-11-30 03:12")
    assert local_time("") == "-"


def test_sizes_have_binary_units_and_durations_the_unit_that_suits() -> None:
    assert [human_bytes(size) for size in (0, 1023, 1536, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    assert human_part(512 << 10, 3 << 20) == "0.5 of 3.0 MiB"
    assert [human_seconds(one) for one in (0.25, 12.34, 125, 9000, 400_000)] == [
        "250 ms", "12.3 s", "2 min 5 s", "2 h 30 min", "4 d 15 h",
    ]  # fmt: skip


def test_characters_that_control_a_terminal_become_visible() -> None:
    assert visible("plain, ümläut, 漢字, → and ✓") == "plain, ümläut, 漢字, → and ✓"
    assert visible("\x1b]0;owned\x07\x1b[2J\r\x9b1m") == r"\x1b]0;owned\x07\x1b[2J\x0d\x9b1m"
    assert visible("user\u202egnp.exe") == r"user\u202egnp.exe"
    assert visible(b"not text: \xff".decode(errors="surrogateescape")) == r"not text: \udcff"
    assert visible("two\nlines\tand a tabulator") == "two\nlines\tand a tabulator"


def test_a_cut_text_has_an_ellipsis() -> None:
    assert [cut("abcdef", width) for width in (6, 4, 1, 0)] == ["abcdef", "abc…", "…", ""]
