def apply(database, media):
    database.execute(
        "CREATE TABLE entries (id INTEGER PRIMARY KEY, author TEXT NOT NULL, text TEXT NOT NULL,"
        " file TEXT NOT NULL, sha256 TEXT NOT NULL)"
    )
