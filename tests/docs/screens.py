"""What commands show on terminals of 80 and 120 columns and in a pipe: `python -m tests.docs.screens` writes it down.

Commands to copy and output of programs stay whole; the terminal wraps them where they are longer than its lines.

Ids, times and places in the kept screens are always the same; durations and sizes are those of one run. A comparison
takes neither these nor the widths of columns into account, because they depend on the machine.
"""

from __future__ import annotations

import contextlib
import getpass
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests import kept, terminal
from tests.e2e import cli
from tests.site import Site

FOLDER = Path(__file__).parents[2] / "docs" / "reference" / "screens"
COMMANDS = (
    ("--help", 0),
    ("service stop --help", 0),
    ("upgarde v2", 2),
    ("backup create --comment 'before the fair'", 0),
    ("backup list", 0),
    ("upgrade v5 --dry-run", 0),
    ("upgrade v4", 6),
    ("log show latest", 0),
    ("upgrade v5", 0),
    ("status", 0),
    ("log list", 0),
    ("service status", 0),
    ("release list", 0),
    ("package list", 0),
    ("import list", 0),
)
_CHANGING = (COMMANDS[3][0], "upgrade v4", "log show latest", "upgrade v5")
WIDTHS = {"terminal-80.txt": 80, "terminal-120.txt": 120, "pipe.txt": 0}
_FIXED = (
    (r"\b\d{8}-\d{6}-", "20261120-082512-"),
    (r"(-[a-z]+)-[0-9a-f]{4}\b", r"\1-1a2b"),
    (r"\b\d{4}-\d\d-\d\d-\d{6}\b", "2026-11-20-082512"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-20 08:25:12"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d", "2026-11-20 08:25"),
    (r"\b[0-9a-f]{40}\b", "0123456789abcdef0123456789abcdef01234567"),
    (r"\b[0-9a-f]{12}\b", "0123456789ab"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:8000"),
)
_VARYING = (
    # On a slow machine it has not answered at all by then.
    (
        r"not\s+healthy\s+after\s+2\s+s:\s+(GET\s+/health(\s+answered\s+500|:[^\n]*)|it\s+has\s+not\s+answered\s+yet)",
        "LATE",
    ),
    (r"\(about [^)]*\)", ""),
    (r"(just now|\d+ \w+ ago)", "AGE"),
    (r"\d+ (h|min) \d+ (min|s)\b", "TIME"),
    (r"\d+(\.\d+)? (ms|s|min|h|d)\b", "TIME"),
    (r"\d+(\.\d+)? [KMG]?i?B\b", "SIZE"),
    (r"\bstarting\b", "running"),
    (r"\b\d{2,}\b", "N"),
    (r" %", "%"),
)


@dataclass(frozen=True)
class Screen:
    """What one command showed: the lines that it wrote, those that stood on the screen, and its exit code."""

    command: str
    written: list[str]
    shown: list[str]
    code: int


def commands(columns: int) -> list[tuple[str, int]]:
    """Return commands with their exit codes; on the wide terminal those that change nothing."""
    return [(one, code) for one, code in COMMANDS if columns != 120 or one not in _CHANGING]


def take(columns: int) -> tuple[list[Screen], str]:
    """Return the screens of all commands on a site of its own, and all of them as one text to keep."""
    with kept.site("sqlite", ("v1", "v2"), backup=True) as site:
        with contextlib.closing(sqlite3.connect(site.state / "journal.sqlite3")) as journal, journal:
            journal.execute(
                "UPDATE step SET seconds = 0.25 WHERE seconds > 0"
            )  # a busy machine changes the plan's notes
        taken = [_screen(site, command, columns) for command, _ in commands(columns)]
        texts = (f"$ holdfast {one.command}\n" + "".join(f"{line}\n" for line in one.written) for one in taken)
        return taken, _fixed("\n".join(texts), site)


def _screen(site: Site, command: str, columns: int) -> Screen:
    arguments = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]
    if columns == 0:
        done = cli.run(site, *arguments)
        lines = (done.stdout + done.stderr).rstrip("\n").split("\n")
        return Screen(command, lines, lines, done.returncode)
    shown, code = terminal.run(terminal.holdfast(*arguments), columns, folder=site.app_folder, TZ="UTC")
    return Screen(command, shown.written, shown.lines, code)


def _fixed(text: str, site: Site) -> str:
    for place, name in (
        (site.app_folder, "/srv/guestbook"),
        (site.vault, "/var/backups/guestbook"),
        (site.state, "/var/lib/holdfast/guestbook.production"),
    ):
        text = text.replace(str(place), name)
    text = text.replace(" --yes --config /srv/guestbook/holdfast.toml", "")
    for pattern, put in _FIXED:
        text = re.sub(pattern, put, text)
    return re.sub(rf"\b{re.escape(getpass.getuser())}\b", "root", text)


def comparable(text: str) -> dict[str, Counter[str]]:
    """Return the words of each command's screen, without what depends on the machine."""
    found = {}
    for part in re.split(r"(?m)^\$ holdfast ", text)[1:]:
        command, _, screen = part.partition("\n")
        for pattern, put in _VARYING:
            screen = re.sub(pattern, put, screen)
        found[command] = Counter(screen.split())
    return found


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, columns in WIDTHS.items():
        (FOLDER / name).write_text(take(columns)[1])
