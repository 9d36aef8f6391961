"""Guestbook: a small web application with a database and uploaded files, made to be upgraded under load."""

import hashlib
import json
import os
import sys
import urllib.parse
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from database import Error, connect

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "settings.json").read_text())
MEDIA = HERE / "media"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if SETTINGS["broken"]:
            return self.answer(500, {"error": "this release is broken"})
        path, _, query = self.path.partition("?")
        values = urllib.parse.parse_qs(query)
        try:
            with closing(connect()) as database:
                if path == "/health":
                    database.execute(f"SELECT {', '.join(SETTINGS['columns'])} FROM entries LIMIT 1").fetchone()
                    return self.answer(200, {"version": SETTINGS["version"]})
                if path == "/entry":
                    row = database.execute(
                        "SELECT text, file, sha256 FROM entries WHERE id=?", (values["id"][0],)
                    ).fetchone()
                    if row is None:
                        return self.answer(404, {"error": "no such entry"})
                    digest = hashlib.sha256((MEDIA / row[1]).read_bytes()).hexdigest()
                    return self.answer(200, {"text": row[0], "whole": digest == row[2]})
                count = database.execute("SELECT count(*) FROM entries").fetchone()[0]
                return self.answer(200, {"version": SETTINGS["version"], "entries": count})
        except (Error, OSError) as error:
            return self.answer(500, {"error": str(error)})

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if SETTINGS["broken"]:
            return self.answer(500, {"error": "this release is broken"})
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:2]}/{digest}.bin"
        values = {"author": "load", "text": digest, "file": name, "sha256": digest, "mood": "good", "place": "here"}
        columns = SETTINGS["columns"]
        try:
            with closing(connect()) as database:
                database.execute("BEGIN IMMEDIATE")
                marks = ", ".join("?" * len(columns))
                (number,) = database.execute(
                    f"INSERT INTO entries ({', '.join(columns)}) VALUES ({marks}) RETURNING id",
                    [values[name] for name in columns],
                ).fetchone()
                # The file is written inside the transaction of its row: row and file are seen together.
                (MEDIA / name).parent.mkdir(exist_ok=True)
                (MEDIA / name).write_bytes(content)
                database.execute("COMMIT")
                return self.answer(201, {"id": number, "sha256": digest})
        except (Error, OSError) as error:
            return self.answer(500, {"error": str(error)})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    address = os.environ.get("ADDRESS", "127.0.0.1")
    Server((address, int(sys.argv[1] if len(sys.argv) > 1 else os.environ["PORT"])), Handler).serve_forever()
