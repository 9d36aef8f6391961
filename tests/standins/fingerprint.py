"""One value for the rows and the uploads of a stand-in, so that a test can say: as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.standins.project import RESTLESS


def of(sql: Callable[[str], str], media: Path) -> str:
    """Of all rows of the application's tables, and of all uploads with their owners and modes."""
    digest = hashlib.sha256(sql(_statement()).encode())
    for line in _listing(media):
        digest.update(line.encode())
    return digest.hexdigest()


def _statement() -> str:
    """One line per table with all its rows."""
    left_out = " ".join(f"AND table_name NOT LIKE '{pattern}'" for pattern in RESTLESS)
    return f"""
SELECT table_name || ' ' || md5(query_to_xml(format('SELECT * FROM %I ORDER BY 1', table_name), true, false, '')::text)
FROM information_schema.tables WHERE table_schema = 'public' {left_out} ORDER BY table_name
"""


def _listing(root: Path) -> Iterator[str]:
    """A line for each entry of a tree but Holdfast's own: name, mode, owner, content."""
    for path in sorted(root.rglob("*")):
        if not any(part.startswith(".holdfast") for part in path.parts):
            status = path.stat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            yield f"{path.relative_to(root)} {status.st_mode:o} {status.st_uid}:{status.st_gid} {content}\n"
