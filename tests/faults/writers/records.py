"""Records in a database, a file and a search index: `records.py write | build DATABASE MEDIA URL INDEX PAUSE`.

`write` is a service that never stops adding records, to each store in turn: the file, the row, the document. It ends
between two records on SIGTERM, and adds none while the file PAUSE exists. `build` writes a new index from the rows.
"""

import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
import urllib.request

mode, database_path, media, url, index, pause = sys.argv[1:]
stopping = False


def stop(number, frame):
    global stopping
    stopping = True


def ask(method, path, lines=None):
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines) if lines is not None else None
    request = urllib.request.Request(url + path, body, {"Content-Type": "application/json"}, method=method)
    urllib.request.urlopen(request).read()


def add(connection):
    name, data = f"{os.getpid()}-{time.monotonic_ns()}", os.urandom(random.choice([100, 3000, 40000]))
    with open(os.path.join(media, name), "wb") as file:
        file.write(data)
    digest = hashlib.sha256(data).hexdigest()
    number = connection.execute("INSERT INTO records (file, sha256) VALUES (?, ?)", (name, digest)).lastrowid
    ask("PUT", f"/{index}/_doc/{number}", [{"text": digest}])


connection = sqlite3.connect(database_path, timeout=30, isolation_level=None)
if mode == "build":
    ask("PUT", f"/{index}", [{"settings": {"number_of_shards": 1, "number_of_replicas": 0}}])
    lines = []
    for number, digest in connection.execute("SELECT id, sha256 FROM records").fetchall():
        lines += [{"index": {"_index": index, "_id": str(number)}}, {"text": digest}]
    if lines:
        ask("POST", "/_bulk?refresh=true", lines)
    with open(f"{pause}.builds", "a") as builds:
        builds.write("built\n")
else:
    signal.signal(signal.SIGTERM, stop)
    while not stopping:
        if not os.path.exists(pause):
            add(connection)
        time.sleep(0.005)
