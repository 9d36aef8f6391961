def apply(database, media):
    database.execute("CREATE TABLE archive (id INTEGER PRIMARY KEY)")
