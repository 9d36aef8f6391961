"""The guestbook's database: one SQLite file."""

import sqlite3
from pathlib import Path

Error = sqlite3.Error
PATH = (Path(__file__).resolve().parent / "guestbook.sqlite3").resolve()


def connect(create=False):
    # mode=rw: a database that is gone must show as an error, never come back empty
    mode = "rwc" if create else "rw"
    connection = sqlite3.connect(f"file:{PATH}?mode={mode}", uri=True, timeout=30, isolation_level=None)
    if create:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection
