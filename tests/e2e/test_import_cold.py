"""`import database --cold` on the command line: the files of a stopped server replace an application's rows."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.model import Outcome, StepState
from holdfast.system.processes import with_cwd_under
from tests.e2e.cli import output, run, run_json, start
from tests.proof import patience
from tests.servers import docker, postgresql
from tests.site import Site
from tests.stores import PostgresqlStore

pytestmark = pytest.mark.combination


@pytest.fixture(params=["here", pytest.param("inside", marks=pytest.mark.combination)])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An engine for a site: a server on this machine, or in a container whose image has its programs."""
    if request.param == "here":
        yield "postgresql"
        return
    docker.engine()
    monkeypatch.setattr(docker, "IMAGE", postgresql.image())
    server = postgresql.EnclosedPostgresqlServer()
    monkeypatch.setattr(postgresql, "shared_enclosed", lambda: contextlib.nullcontext(server))
    yield "postgresql-inside"
    server.remove()


@pytest.fixture
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Site]:
    """A guestbook with PostgreSQL, and a folder for `--scratch`."""
    engine = request.getfixturevalue("either") if "either" in request.fixturenames else "postgresql"
    site = Site(folder / "s", engine=engine)
    site.operate("install", "v1")
    (folder / "scratch").mkdir()
    folder.chmod(0o711)  # the private server's account passes through
    yield site
    site.remove()


def data_directory(site: Site, target: Path, *, running: bool = False) -> Path:
    assert isinstance(site.store, PostgresqlStore)
    site.store.cold(target, running=running)
    return target


def never_stopped(site: Site) -> bool:
    """Whether the last operation ended before it came to the gate and the services."""
    app = site.open()
    try:
        record = app.journal.operations(1)[0]
        assert (record.kind, record.outcome) == ("import.database", Outcome.UNDONE)
        steps = {step.name: step.state for step in app.journal.steps(record.id)}
        return steps["gate.close"] is steps["services.stop"] is StepState.PENDING
    finally:
        app.close()


def nothing_left(scratch: Path) -> bool:
    return list(scratch.iterdir()) == [] and with_cwd_under(str(scratch)) == []


def test_a_data_directory_comes_in_by_one_command(either: str, served: Site, folder: Path) -> None:
    source = data_directory(served, folder / "directory.tar.gz")
    before = served.store.digest()
    served.post(b"since the copy")
    assert served.get("/")[1]["entries"] == 121
    done = run(served, "import", "database", str(source), "--cold", "--scratch", str(folder / "scratch"))
    assert done.returncode == 0, done.stderr
    assert served.get("/")[1] == {"version": "v1", "entries": 120}
    assert served.store.digest() == before
    assert served.post(b"after the import")[0] == 201
    assert nothing_left(folder / "scratch")
    assert one_offs(served) == []


def test_one_on_the_standard_input_of_an_older_version_is_migrated(served: Site, folder: Path) -> None:
    source = data_directory(served, folder / "directory.tar.gz")
    served.operate("upgrade", "v2")
    with open(source, "rb") as stream:
        arguments = ("import", "database", "-", "--cold", "--scratch", str(folder / "scratch"))
        done = run(served, *arguments, stdin=stream)
    assert done.returncode == 0, done.stderr
    assert served.get("/")[1] == {"version": "v2", "entries": 120}
    assert nothing_left(folder / "scratch")


def test_that_of_a_running_server_is_refused_and_nothing_touched(served: Site, folder: Path) -> None:
    source = data_directory(served, folder / "directory.tar.gz", running=True)
    served.post(b"since the copy")
    before = served.fingerprint()
    done = run(served, "import", "database", str(source), "--cold", "--scratch", str(folder / "scratch"))
    assert done.returncode == 4, done.stderr
    assert "postmaster.pid" in done.stderr
    assert never_stopped(served)
    assert served.fingerprint() == before
    assert served.get("/")[1]["entries"] == 121
    assert nothing_left(folder / "scratch")


def test_another_version_is_refused_before_all_is_unpacked(served: Site, folder: Path) -> None:
    """The archive is cut behind it, which would be another failure."""
    with tarfile.open(folder / "directory.tar", "w") as archive:
        for name, content in (("PG_VERSION", b"98\n"), ("base/1/1", b"x" * (1 << 20))):
            member = tarfile.TarInfo(f"./database/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    os.truncate(folder / "directory.tar", 1 << 19)
    before = served.fingerprint()
    arguments = ("import", "database", str(folder / "directory.tar"), "--cold", "--scratch", str(folder / "scratch"))
    done = run(served, *arguments)
    assert done.returncode == 4, done.stderr
    assert "PostgreSQL 98" in done.stderr
    assert never_stopped(served)
    assert served.fingerprint() == before
    assert nothing_left(folder / "scratch")


def test_without_the_option_it_is_named(served: Site, folder: Path) -> None:
    source = data_directory(served, folder / "directory.tar.gz")
    before = served.fingerprint()
    operations = len(run_json(served, "log", "list")["data"]["operations"])
    done = run(served, "import", "database", str(source))
    assert done.returncode == 4, done.stderr
    assert f"holdfast import database {source} --cold" in done.stderr
    assert served.fingerprint() == before
    assert len(run_json(served, "log", "list")["data"]["operations"]) == operations


def test_a_database_of_another_product_is_refused(site: Site, folder: Path) -> None:
    site.operate("install", "v1")
    before = site.fingerprint()
    done = run(site, "import", "database", str(folder), "--cold")
    assert done.returncode == 4, done.stderr
    assert site.fingerprint() == before


def test_what_cannot_come_in_so_is_said(served: Site, folder: Path) -> None:
    (folder / "dump").write_bytes(b"CREATE TABLE a (b INTEGER);\n")
    scratch = str(folder / "scratch")
    before = served.fingerprint()
    for source, place in (
        (str(folder / "none"), scratch),
        (str(folder / "dump"), scratch),
        (str(folder / "s" / "repo"), scratch),
        (str(folder / "dump"), str(folder / "none")),
        (str(folder / "dump"), "/" + "x" * 200),
    ):
        done = run(served, "import", "database", source, "--cold", "--scratch", place)
        assert done.returncode in (4, 6), (source, place, done.stderr)
        assert "Traceback" not in done.stderr
    source = data_directory(served, folder / "directory.tar.gz")
    folder.chmod(0o700)
    done = run(served, "import", "database", str(source), "--cold", "--scratch", scratch)
    assert done.returncode == (4 if os.geteuid() == 0 else 0), done.stderr
    assert served.fingerprint() == before
    assert nothing_left(folder / "scratch")


def held_server(scratch: Path) -> list[int]:
    """Stop the private server at its beginning, so that Holdfast waits for it; return its processes on this machine."""
    deadline = patience.deadline(60)
    while True:
        assert time.monotonic() < deadline, "no private server began"
        for path in scratch.glob("holdfast-*/unpacked/database/postmaster.pid"):
            first = path.read_text().partition("\n")[0] if path.exists() else ""
            found = with_cwd_under(str(scratch))
            if first.isdigit() and found:  # the number of single-user mode is negative
                for number in found:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGSTOP)
                return found
        time.sleep(0.002)


def one_offs(site: Site) -> list[str]:
    """Containers that the last operation left."""
    if "container" not in site.store.lines:
        return []
    app = site.open()
    operation = app.journal.operations(1)[0].id
    app.close()
    arguments = ["docker", "ps", "--all", "--quiet", f"--filter=label=holdfast.operation={operation}"]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()


def test_killed_while_the_private_server_runs(either: str, served: Site, folder: Path) -> None:
    source = data_directory(served, folder / "directory.tar.gz")
    served.post(b"since the copy")
    before = served.fingerprint()
    process = start(served, "import", "database", str(source), "--cold", "--scratch", str(folder / "scratch"))
    held = held_server(folder / "scratch")
    process.kill()
    assert process.wait() == -signal.SIGKILL, output(served)
    assert set(held) & set(with_cwd_under(str(folder / "scratch")))
    assert [item["state"] for item in run_json(served, "status")["data"]["operations"]] == ["interrupted"]
    done = run(served, "recover")
    assert done.returncode == 0, done.stderr
    assert nothing_left(folder / "scratch")
    assert one_offs(served) == []
    assert served.fingerprint() == before
    assert served.get("/")[1]["entries"] == 121


@pytest.mark.combination
def test_ctrl_c_while_the_private_server_starts(served: Site, folder: Path) -> None:
    source = data_directory(served, folder / "directory.tar.gz")
    before = served.fingerprint()
    process = start(served, "import", "database", str(source), "--cold", "--scratch", str(folder / "scratch"))
    held_server(folder / "scratch")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, output(served)
    assert nothing_left(folder / "scratch")
    assert served.fingerprint() == before
