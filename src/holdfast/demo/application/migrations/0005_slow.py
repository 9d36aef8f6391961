import os
import time


def apply(database, media):
    """Rewrites every row in committed pieces, slowly enough to be killed in the middle."""
    pause = float(os.environ.get("GUESTBOOK_SLOW_SECONDS", "2.0")) / 20
    database.execute("ALTER TABLE entries ADD COLUMN length INTEGER NOT NULL DEFAULT 0")
    last = database.execute("SELECT max(id) FROM entries").fetchone()[0] or 0
    for piece in range(20):
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "UPDATE entries SET length = length(text), author = author || '!' WHERE id > ? AND id <= ?",
            (last * piece // 20, last * (piece + 1) // 20),
        )
        database.execute("COMMIT")
        (media / f"piece-{piece}.txt").write_text("done")
        time.sleep(pause)
    for path in media.glob("piece-*.txt"):
        path.unlink()
