"""The same service on PostgreSQL or MariaDB: `churn_server.py DSN MEDIA SEED`; see churn.py for what it promises."""

import hashlib
import os
import random
import signal
import sys
import time


class Deadlock(Exception):
    """The server ended a transaction of ours for the other's sake; nothing of it is left."""


dsn, media, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(seed)
stopping = False
longest = 0.0


def stop(number, frame):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
if dsn.startswith("socket="):
    import pymysql

    place = dict(part.split("=", 1) for part in dsn.split())
    connection = pymysql.connect(
        unix_socket=place["socket"], user=place["user"], database=place["dbname"], autocommit=True, sql_mode="ANSI"
    )
    ANY = "RAND()"

    def is_deadlock(error):
        return isinstance(error, pymysql.err.OperationalError) and error.args[0] == 1213
else:
    import psycopg

    connection = psycopg.connect(dsn, autocommit=True)
    ANY = "random()"

    def is_deadlock(error):
        return isinstance(error, psycopg.errors.DeadlockDetected)


def execute(sql, values=None):
    cursor = connection.cursor()
    try:
        cursor.execute(sql, values)
    except Exception as error:
        if is_deadlock(error):
            raise Deadlock from error
        raise
    return cursor


def again_after_deadlock(act, *values):
    """Rows change before files, so what a deadlock ended has changed no file and may begin again."""
    while True:
        try:
            return act(*values)
        except Deadlock:
            connection.rollback()


def content():
    return os.urandom(chance.choice([100, 3000, 40000]))


def change(sql, *values):
    """A statement that a holder of writers keeps waiting; the longest wait is noted."""
    global longest
    started = time.monotonic()
    execute(sql, values)
    waited = time.monotonic() - started
    if waited > longest:
        longest = waited
        place = os.path.join(os.path.dirname(media), f"longest-{seed}")
        with open(f"{place}.new", "w") as file:
            file.write(str(longest))
        os.rename(f"{place}.new", place)  # it may be read at any time


def write(name, data):
    with open(os.path.join(media, name), "wb") as file:
        file.write(data)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def inside():
    execute("BEGIN")
    # A row that the other writer has is left to it: two must not change one file.
    rows = execute(f"SELECT id, file FROM inside ORDER BY {ANY} LIMIT 1 FOR UPDATE SKIP LOCKED").fetchall()
    action = chance.choice(["add", "add", "replace", "delete"])
    if action == "add" or not rows:
        name, data = f"inside/{seed}-{time.monotonic_ns()}", content()
        change("INSERT INTO inside (file, sha256) VALUES (%s, %s)", name, digest(data))
        write(name, data)
    elif action == "replace":
        data = content()
        change("UPDATE inside SET sha256=%s WHERE id=%s", digest(data), rows[0][0])
        write(rows[0][1], data)
    else:
        change("DELETE FROM inside WHERE id=%s", rows[0][0])
        os.unlink(os.path.join(media, rows[0][1]))
    execute("COMMIT")


def outside():
    if chance.random() < 0.7:
        name, data = f"outside/{seed}-{time.monotonic_ns()}", content()
        write(name, data)
        again_after_deadlock(change, "INSERT INTO outside (file, sha256) VALUES (%s, %s)", name, digest(data))
        return
    rows = execute(
        "SELECT id, file FROM outside WHERE file LIKE %s LIMIT 1", (f"outside/{seed}-%",)
    ).fetchall()
    if rows:
        again_after_deadlock(change, "DELETE FROM outside WHERE id=%s", rows[0][0])
        os.unlink(os.path.join(media, rows[0][1]))


while not stopping:
    again_after_deadlock(inside)
    outside()
    time.sleep(0.002)
