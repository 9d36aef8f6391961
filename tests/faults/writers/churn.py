"""A service that never stops changing rows and their files: `churn.py DATABASE MEDIA SEED`.

Rows of `inside` change together with their files within one transaction; rows of `outside` beside it, files first on
an addition, rows first on a deletion, as careful applications do. On SIGTERM it ends between two changes.
"""

import hashlib
import os
import random
import signal
import sqlite3
import sys
import time

database_path, media, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(seed)
stopping = False


def stop(number, frame):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
connection = sqlite3.connect(database_path, timeout=30, isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
longest = 0.0


def content():
    return os.urandom(chance.choice([100, 3000, 40000]))


def begin():
    global longest
    started = time.monotonic()
    connection.execute("BEGIN IMMEDIATE")
    waited = time.monotonic() - started
    if waited > longest:
        longest = waited
        place = os.path.join(os.path.dirname(database_path), f"longest-{seed}")
        with open(f"{place}.new", "w") as file:
            file.write(str(longest))
        os.rename(f"{place}.new", place)  # it may be read at any time


def write(name, data):
    with open(os.path.join(media, name), "wb") as file:
        file.write(data)


def inside():
    begin()
    rows = connection.execute("SELECT id, file FROM inside ORDER BY random() LIMIT 1").fetchall()
    action = chance.choice(["add", "add", "replace", "delete"])
    if action == "add" or not rows:
        name, data = f"inside/{seed}-{time.monotonic_ns()}", content()
        connection.execute("INSERT INTO inside (file, sha256) VALUES (?, ?)", (name, hashlib.sha256(data).hexdigest()))
        write(name, data)
    elif action == "replace":
        data = content()
        connection.execute("UPDATE inside SET sha256=? WHERE id=?", (hashlib.sha256(data).hexdigest(), rows[0][0]))
        write(rows[0][1], data)
    else:
        connection.execute("DELETE FROM inside WHERE id=?", (rows[0][0],))
        os.unlink(os.path.join(media, rows[0][1]))
    connection.execute("COMMIT")


def outside():
    if chance.random() < 0.7:
        name, data = f"outside/{seed}-{time.monotonic_ns()}", content()
        write(name, data)
        begin()
        connection.execute("INSERT INTO outside (file, sha256) VALUES (?, ?)", (name, hashlib.sha256(data).hexdigest()))
        connection.execute("COMMIT")
        return
    # Each writer deletes only its own, so that two never take the same row.
    rows = connection.execute(
        "SELECT id, file FROM outside WHERE file LIKE ? LIMIT 1", (f"outside/{seed}-%",)
    ).fetchall()
    if rows:
        begin()
        connection.execute("DELETE FROM outside WHERE id=?", (rows[0][0],))
        connection.execute("COMMIT")
        os.unlink(os.path.join(media, rows[0][1]))


while not stopping:
    inside()
    outside()
    time.sleep(0.002)
