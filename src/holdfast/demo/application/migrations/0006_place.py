def apply(database, media):
    database.execute("ALTER TABLE entries ADD COLUMN place TEXT")
