"""What a module of this package says about its application, and what the runner gives it."""

from __future__ import annotations

import hashlib
import http.cookiejar
import json
import os
import shlex
import shutil
import struct
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCOUNT = "www-data"
_ANSWER_SECONDS = 30
_FETCH_SECONDS = 1200
MARKS = "marks"


class UnavailableError(Exception):
    """An application that cannot be tried here; the text says what is missing."""


def call(
    argv: list[str], cwd: Path, timeout: float = _FETCH_SECONDS, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program that fetches or prepares something, and return what it printed. Raise UnavailableError."""
    if shutil.which(argv[0]) is None and not Path(argv[0]).exists():
        raise UnavailableError(f"{argv[0]} is not installed")
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"`{shlex.join(argv)}` took more than {timeout:.0f} s") from None
    if done.returncode:
        raise UnavailableError(f"`{shlex.join(argv)}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def picture(key: str) -> bytes:
    """Return a small PNG that differs from others."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    pixels = b"".join(b"\0" + hashlib.sha256(f"{key}{row}".encode()).digest()[:24] for row in range(8))
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


class Client:
    """A visitor with cookies. Every answer but 2xx is an exception."""

    def __init__(self, port: int) -> None:
        self.url = ""  # of the last answer, after redirects
        self._base = f"http://127.0.0.1:{port}"
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> str:
        request = urllib.request.Request(self._base + path, data=body, method=method, headers=dict(headers or {}))
        try:
            with self._opener.open(request, timeout=_ANSWER_SECONDS) as answer:
                self.url = answer.geturl()
                text: str = answer.read().decode(errors="replace")
                return text
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:500]
            raise OSError(f"{method} {path} answered {error.code}: {told}") from None

    def cookie(self, name: str) -> str:
        """Return the value of a cookie, or nothing."""
        return next((cookie.value or "" for cookie in self.cookies if cookie.name == name), "")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> str:
        return self.request("GET", path, headers=headers)

    def form(self, path: str, values: Mapping[str, str], headers: Mapping[str, str] | None = None) -> str:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urllib.parse.urlencode(values).encode(), {**kind, **(headers or {})})

    def json(self, method: str, path: str, value: object = None, headers: Mapping[str, str] | None = None) -> Any:
        kind = {"Content-Type": "application/json"}
        body = None if value is None else json.dumps(value).encode()
        text = self.request(method, path, body, {**kind, **(headers or {})})
        return json.loads(text) if text else None

    def upload(
        self,
        path: str,
        values: Mapping[str, str],
        files: Mapping[str, tuple[str, bytes]],
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Post a form with files: name of the field -> name and content of the file."""
        boundary = uuid.uuid4().hex
        parts = []
        for name, value in values.items():
            parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
        for name, (file, content) in files.items():
            said = f'Content-Disposition: form-data; name="{name}"; filename="{file}"'
            kind = "Content-Type: application/octet-stream"
            parts.append(f"--{boundary}\r\n{said}\r\n{kind}\r\n\r\n".encode() + content + b"\r\n")
        parts.append(f"--{boundary}--\r\n".encode())
        kind = f"multipart/form-data; boundary={boundary}"
        return self.request("POST", path, b"".join(parts), {"Content-Type": kind, **(headers or {})})


class Repository:
    """The git repository of releases: each version is one tagged commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self._git("init", "--quiet")

    def _git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=Operator", "-c", "user.email=operator@example.invalid"]
        call(["git", *identity, "-C", str(self.path), *arguments], self.path)

    def clear(self) -> None:
        for path in self.path.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def tag(self, name: str) -> None:
        self._git("add", "--all", "--force")
        self._git("commit", "--quiet", "--allow-empty", "--message", name)
        self._git("tag", name)

    def change(self, name: str, start: str, files: Mapping[str, str]) -> None:
        """Tag a version that differs from another one by some files."""
        self._git("checkout", "--quiet", "--detach", start)
        for file, text in files.items():
            self.write(file, text)
        self.tag(name)


@dataclass
class Database:
    """Where the application's database is."""

    kind: str
    name: str = "application"
    host: str = ""
    user: str = ""


@dataclass
class Site:
    """One application in a scratch folder."""

    folder: Path
    port: int
    database: Database
    place: str = "shared"
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def app(self) -> Path:
        return self.folder / "app"

    @property
    def shared(self) -> Path:
        return self.app / self.place

    @property
    def config(self) -> Path:
        return self.app / "holdfast.toml"

    @property
    def marks(self) -> Path:
        return self.app / MARKS

    def client(self) -> Client:
        return Client(self.port)


class Application:
    """An application of somebody else. Subclasses say what differs."""

    name = ""
    language = ""
    database = ""  # the kind of its database, if it has one: sqlite, postgresql, mariadb
    old = ""
    new = ""
    broken: tuple[tuple[str, str], ...] = ()  # versions whose upgrade must be undone: tag, what is wrong with it
    slow = "slow"  # the new version, which waits after the migration
    programs: tuple[str, ...] = ()
    page = "/"
    volatile: tuple[str, ...] = ()  # tables that visitors or time change by themselves
    volatile_files: tuple[str, ...] = ()  # names of files of which the same holds
    personal: tuple[str, ...] = ()  # raw values of its database that no sanitized copy may have
    note = ""  # what the reader of the figures has to know

    def prepare(self, site: Site) -> None:
        """Do by hand what an operator does before the first installation."""

    def fetch(self, repository: Repository, scratch: Path) -> None:
        """Write the versions into the repository, each with its tag."""
        raise NotImplementedError

    def configuration(self) -> str:
        """Return holdfast.toml without name, state, repository, gate, vault and database."""
        raise NotImplementedError

    def fill(self, site: Site) -> None:
        """Create the first rows and files through the application."""
        raise NotImplementedError

    def write(self, client: Client, site: Site, key: str) -> None:
        """Write one piece of data of this key as a visitor; return only when it is acknowledged."""
        raise NotImplementedError

    def written(self, client: Client, site: Site) -> set[str]:
        """Return the keys that the application has, asked as a visitor does."""
        raise NotImplementedError


def then_waits(command: str) -> str:
    """Return the [tasks] of a release whose migration does its work, says so, and does not end."""
    script = f"{command} && touch {{root}}/{MARKS}/migrated && sleep 600"
    return f'[tasks]\nmigrate = ["sh", "-c", {json.dumps(script)}]\n'


def then_fails(command: str) -> str:
    """Return the [tasks] of a release whose migration does its work and then fails."""
    script = f"{command}; echo 'the migration does not know what to do' >&2; exit 1"
    return f'[tasks]\nmigrate = ["sh", "-c", {json.dumps(script)}]\n'
