"""Common fixtures: short paths (a socket's path is limited), isolation from the user's environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

from holdfast.drivers.databases.sql.kept_sessions import KeptSessions
from tests import containers
from tests.memory import make_folder, remove_folder
from tests.servers import docker, podman, postgresql
from tests.site import Site

# The applications of the tests run `python3`: the one that runs the tests, not a version manager's wrapper of it. And
# PostgreSQL's own programs, not a distribution's wrapper: it is a script, and they are started by the thousand.
os.environ["PATH"] = os.pathsep.join(
    [
        os.path.dirname(sys.executable),
        *filter(None, [str(postgresql.programs() or "")]),
        os.environ.get("PATH", os.defpath),
    ]
)


# Its processes are started by the thousand; without bytecode each would compile what it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says something of the machine, nothing of the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

pytest_plugins = ["tests.proof.plugin", "tests.proof.cpu"]


# Tests of one of these run on one worker: its engine or server is started once, not by each.
_CONTAINERS = ("compose", "podman", "docker", "connect_access", "uso", "packages_images", "packages_script")


_OF_SEARCH = ("test_indices.py", "test_index_agreement.py", "test_search_versions.py", "test_phraseanet.py")


class _ByWhatTheyStart(LoadScopeScheduling):
    """Sends tests to workers one by one, but those that need one engine or server to the same worker.

    Where every point is taken, tests in containers are most of the work and go to all workers; those of Podman do not,
    for its engines share the name server of a machine's containers.
    """

    def _split_scope(self, nodeid: str) -> str:
        from tests.proof.plugin import selection_of  # which pytest itself imports first

        name = nodeid.rpartition("/")[2]
        if "podman" in name or (
            selection_of(self.config).level != "everything" and any(word in name for word in _CONTAINERS)
        ):
            return "containers"
        if "inside" in name and selection_of(self.config).level != "everything":
            return "inside"
        if "elasticsearch" in name or name.startswith(_OF_SEARCH) or "[search_" in name or "[mariadb-search_" in name:
            return "search"
        return "mysql" if "mysql" in name else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return _ByWhatTheyStart(config, log)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HOLDFAST_", "GIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


@pytest.fixture(autouse=True)
def _no_session_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close sessions that wait for their next use, where a test enters an operation and never leaves it."""
    kept: list[KeptSessions] = []
    opened = KeptSessions._opened

    def noted(self: KeptSessions, database: str) -> Any:
        kept.append(self)
        return opened(self, database)

    monkeypatch.setattr(KeptSessions, "_opened", noted)
    yield
    for sessions in kept:
        sessions.release()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short temporary folder."""
    path = make_folder()
    yield path
    remove_folder(path)


@pytest.fixture
def disk_folder() -> Iterator[Path]:
    """One that is not in memory."""
    path = Path(tempfile.mkdtemp(prefix="hf"))
    yield path
    remove_folder(path)


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    """A guestbook with nothing installed."""
    made = Site(folder / "s")
    yield made
    made.remove()


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left_in_an_engine() -> Iterator[None]:
    """No containers, networks, volumes and images of tests, once those of a file are through."""
    yield
    for client in [*docker.running(), *podman.running()]:
        assert containers.left_behind(client) == []
