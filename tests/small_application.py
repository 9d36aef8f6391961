"""A small application for tests: a repository with tagged versions, a folder with its holdfast.toml, a port."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.config.load import load
from holdfast.system.ports import free_loopback_port
from holdfast.wiring import open_app
from tests.memory import remove_folder
from tests.proof import patience


class SmallApplication:
    def __init__(self, folder: Path) -> None:
        self.folder, self.app, self.repository = folder, folder / "app", folder / "repository"
        self.config, self.shared = self.app / "holdfast.toml", self.app / "shared"
        self.port = free_loopback_port()
        self.app.mkdir()
        self.repository.mkdir()
        for path in (folder, self.app):  # other accounts pass through
            path.chmod(0o755)
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=S", "-c", "user.email=s@example.invalid"]
        subprocess.run(["git", *identity, "-C", str(self.repository), *arguments], check=True, capture_output=True)

    def release(self, version: str, files: Mapping[str, str] | None = None) -> None:
        """Commit files and a file `VERSION`, and name the commit."""
        for name, text in {**(files or {}), "VERSION": version}.items():
            (self.repository / name).parent.mkdir(parents=True, exist_ok=True)
            (self.repository / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", version)
        self.git("tag", version)

    def get(self, path: str = "/") -> dict[str, Any]:
        """Return what a page says as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience.limit(10))
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            found: dict[str, Any] = json.loads(text)
            return found
        finally:
            connection.close()

    def end(self) -> None:
        app = open_app(load(str(self.config)))
        try:
            app.context.runtime.shut_down()
        finally:
            app.close()
        remove_folder(self.folder)
