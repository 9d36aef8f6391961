"""Common fixtures: short paths (a socket's path is limited), isolation from the user's environment."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

from tests import containers
from tests.memory import make_folder
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", type=int, default=9, help="take every k-th kill point")
    parser.addoption("--every-server", type=int, default=0, help="the same with a database server; default: --every")
    parser.addoption("--every-container", type=int, default=0, help="the same in containers; default: --every")
    parser.addoption(
        "--every-power", type=int, default=0, help="the same for lost power and full disks; default: --every"
    )


class _PodmanOnOne(LoadScopeScheduling):
    """Tests of Podman run one after the other: its engines share the name server of a machine's containers."""

    def _split_scope(self, nodeid: str) -> str:
        return "podman" if "podman" in nodeid.rpartition("::")[2] else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return _PodmanOnOne(config, log)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HOLDFAST_", "GIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short temporary folder."""
    path = make_folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def disk_folder() -> Iterator[Path]:
    """One that is not in memory."""
    path = Path(tempfile.mkdtemp(prefix="hf"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


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


class _AtOnce:
    """Prints a failure when it happens: the long runs take an hour."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_line(f"{report.nodeid} failed:\n{report.longreprtext[-2000:]}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):  # the process that the others report to
        config.pluginmanager.register(_AtOnce(terminal))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what fault tests and consistency tests measured."""
    lines = []
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        lines += [f"  {name}: {value}" for name, value in getattr(report, "user_properties", [])]
    if lines:
        terminalreporter.section("measured")
        points = [re.match(r"  kill_points: \S+ (\d+) of", line) for line in lines]
        taken = sum(int(found[1]) for found in points if found is not None)
        if taken:
            terminalreporter.write_line(f"  kill points taken: {taken}")
        for line in sorted(set(lines)):
            terminalreporter.write_line(line)
