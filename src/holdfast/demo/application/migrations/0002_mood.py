def apply(database, media):
    database.execute("BEGIN IMMEDIATE")
    database.execute("ALTER TABLE entries ADD COLUMN mood TEXT NOT NULL DEFAULT 'fine'")
    database.execute("CREATE TABLE moods (name TEXT PRIMARY KEY)")
    database.execute("INSERT INTO moods VALUES ('fine'), ('good')")
    database.execute("COMMIT")
