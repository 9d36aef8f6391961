import itertools


def apply(database, media):
    """Loses rows and uploads, commits that, and dies half-way: the night that this is all about."""
    database.execute("BEGIN IMMEDIATE")
    database.execute("DELETE FROM entries WHERE id % 2 = 0")
    database.execute("ALTER TABLE entries RENAME COLUMN text TO body")
    database.execute("COMMIT")
    for path in itertools.islice(sorted(media.rglob("*.bin")), 40):
        path.unlink()
    for path in itertools.islice(sorted(media.rglob("*.bin")), 20):
        path.write_bytes(b"converted")
    (media / "left-over.tmp").write_bytes(b"x" * 1000)
    raise SystemExit("0003_dies: no such table: archive")
