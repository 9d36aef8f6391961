"""The commands of the guestbook: `manage.py install | migrate | warm`."""

import hashlib
import importlib.util
import os
import sys
from contextlib import closing
from pathlib import Path

from database import connect

HERE = Path(__file__).resolve().parent
MEDIA = HERE / "media"


def migrate():
    with closing(connect(create=True)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY)")
        done = {row[0] for row in database.execute("SELECT name FROM schema_migrations")}
        for path in sorted((HERE / "migrations").glob("*.py")):
            if path.stem in done:
                continue
            specification = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
            print(f"applying {path.stem}", flush=True)
            module.apply(database, MEDIA)
            database.execute("INSERT INTO schema_migrations VALUES (?)", (path.stem,))


def install():
    migrate()
    rows = int(os.environ.get("GUESTBOOK_ROWS", "3000"))
    files = int(os.environ.get("GUESTBOOK_FILES", "300"))
    with closing(connect()) as database:
        database.execute("BEGIN IMMEDIATE")
        for number in range(rows):
            content = (f"upload {number % files} " * 300).encode()
            digest = hashlib.sha256(content).hexdigest()
            name = f"{digest[:2]}/{digest}.bin"
            if number < files:
                (MEDIA / name).parent.mkdir(exist_ok=True)
                (MEDIA / name).write_bytes(content)
            database.execute(
                "INSERT INTO entries (author, text, file, sha256) VALUES ('seed', ?, ?, ?)",
                (f"entry {number}", name, digest),
            )
        database.execute("COMMIT")


if __name__ == "__main__":
    {"install": install, "migrate": migrate, "warm": lambda: None}[sys.argv[1]]()
