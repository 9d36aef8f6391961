"""Every screen fits its terminal, nothing is left behind, and it is as the reference shows it."""

from __future__ import annotations

import re

import pytest

from tests.docs import screens


@pytest.mark.parametrize("name", screens.WIDTHS)
def test_screens_fit_and_are_as_they_were(name: str) -> None:
    columns = screens.WIDTHS[name]
    taken, text = screens.take(columns)
    for screen, (command, code) in zip(taken, screens.commands(columns), strict=True):
        assert screen.code == code, (command, screen.shown)
        wide = [line for line in screen.written if len(line) > columns > 0]
        assert not [line for line in wide if "$ " not in line and " -> " not in line], (command, wide)
        assert not any(re.match(r"\[ *\d+/\d+\]", line) for line in screen.shown), "a moving line was left behind"
        assert not any("\x1b" in line or "\r" in line for line in screen.shown)
    stored = screens.comparable((screens.FOLDER / name).read_text())
    found = screens.comparable(text)
    for command in stored.keys() | found.keys():
        assert found.get(command) == stored.get(command), (
            f"{command}: `make screens` writes them anew, if that is right"
        )
