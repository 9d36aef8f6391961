"""The guestbook's database on a PostgreSQL server, with the few words of SQLite that the guestbook uses."""

import os

import psycopg

Error = psycopg.Error
_WORDS = {"BEGIN IMMEDIATE": "BEGIN", "INTEGER PRIMARY KEY": "SERIAL PRIMARY KEY", "?": "%s"}


class Connection:
    def __init__(self, inner):
        self._inner = inner

    def execute(self, sql, parameters=None):
        for word, ours in _WORDS.items():
            sql = sql.replace(word, ours)
        return self._inner.execute(sql, parameters)

    def close(self):
        self._inner.close()


def connect(create=False):
    return Connection(psycopg.connect(os.environ["DATABASE_URL"], autocommit=True))
