"""The guestbook's database on a MariaDB or MySQL server, with the few words of SQLite that the guestbook uses."""

import os

import pymysql

Error = pymysql.Error
_WORDS = {
    "BEGIN IMMEDIATE": "START TRANSACTION",
    "INTEGER PRIMARY KEY": "INTEGER PRIMARY KEY AUTO_INCREMENT",
    "name TEXT PRIMARY KEY": "name VARCHAR(190) PRIMARY KEY",
    "DEFAULT 'fine'": "DEFAULT ('fine')",
    "?": "%s",
}
# What cannot be moved with a table: it must come back with the rows.
_PROGRAMS = (
    "CREATE VIEW authors AS SELECT author, COUNT(*) AS entries FROM entries GROUP BY author",
    "CREATE TRIGGER trimmed BEFORE INSERT ON entries FOR EACH ROW SET NEW.author = TRIM(NEW.author)",
    "CREATE FUNCTION shout(said TEXT) RETURNS TEXT DETERMINISTIC RETURN CONCAT(UPPER(said), '!; --')",
    "CREATE EVENT yearly ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' DO DELETE FROM entries WHERE id < 0",
)


class Connection:
    def __init__(self, inner):
        self._inner = inner

    def execute(self, sql, parameters=None):
        for word, ours in _WORDS.items():
            sql = sql.replace(word, ours)
        cursor = self._inner.cursor()
        asked = sql.removesuffix(" RETURNING id")  # which MySQL does not know
        cursor.execute(asked, parameters)
        if asked != sql:
            cursor.execute("SELECT LAST_INSERT_ID()")
        if sql.startswith("CREATE TABLE entries"):
            for program in _PROGRAMS:
                cursor.execute(program)
        return cursor

    def close(self):
        self._inner.close()


def connect(create=False):
    place = dict(part.split("=", 1) for part in os.environ["DATABASE_URL"].split())
    return Connection(
        pymysql.connect(
            unix_socket=place["socket"],
            user=place["user"],
            database=place["dbname"],
            autocommit=True,
            charset="utf8mb4",
            sql_mode="PIPES_AS_CONCAT,STRICT_TRANS_TABLES",
        )
    )
