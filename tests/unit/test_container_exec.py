"""Programs that a container lacks: found by a check, and never waited for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.drivers.databases.sql import session
from holdfast.drivers.databases.sql.container_exec import Container, MissingProgramError, end_inside, missing_programs
from holdfast.drivers.databases.sql.session import SqlError, retry_until_available
from holdfast.errors import StepError
from holdfast.system.host import Host

PROGRAMS = ("sh", "tr", "grep", "sleep")
Make = Callable[..., Container]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes a container with some programs, by an engine that runs them on this machine."""

    def made(*programs: str, code: int = 0) -> Container:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in programs:
            (folder / name).symlink_to(shutil.which(name) or "")
        engine = tmp_path / "engine"
        engine.write_text(
            f'#!/bin/sh\n[ "$1" = inspect ] && echo true && exit\nshift 2\n[ {code} = 0 ] || exit {code}\n'
            f'PATH={folder} exec "$@"\n'
        )
        engine.chmod(0o755)
        return Container(str(engine), lambda: "db-1")

    return made


def test_a_container_with_the_programs_has_no_problem(make: Make) -> None:
    box = make(*PROGRAMS)
    assert missing_programs(box, "databases.main", Host()) == []
    end_inside(box, "20260101-000000-nothing", Host())


@pytest.mark.parametrize("missing", PROGRAMS)
def test_a_missing_program_is_named(make: Make, missing: str) -> None:
    (problem,) = missing_programs(make(*set(PROGRAMS) - {missing}), "databases.main", Host())
    assert (problem.subject, problem.severity) == ("databases.main", "error")
    assert f"the container db-1 has no {missing}. Holdfast needs" in problem.message


def test_a_missing_program_is_not_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that restarts may be available in a minute, but a program does not appear by itself."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: pytest.fail("it waited"))
    monkeypatch.setattr(session, "time", clock)
    box = make("sh", "tr")
    with pytest.raises(MissingProgramError, match="has no grep, sleep") as raised:
        retry_until_available(lambda: end_inside(box, "20260101-000000-dead", Host()), "main")
    assert "Install grep, sleep" in raised.value.next_step


def test_an_engine_that_is_not_installed_is_no_fault_of_the_container(tmp_path: Path) -> None:
    box = Container(str(tmp_path / "no-engine"), lambda: "db-1")
    with pytest.raises(MissingProgramError, match="no-engine cannot be started on this machine"):
        end_inside(box, "20260101-000000-dead", Host())


@pytest.mark.parametrize(("state", "tries"), [("28P01", 1), ("57P03", 2)])
def test_only_a_server_that_may_come_back_is_waited_for(
    state: str, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 1.0, 100.0])
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: next(times), sleep=lambda seconds: None))
    met: list[str] = []

    def fail() -> None:
        met.append(state)
        raise SqlError("no", state)

    with pytest.raises(StepError) as raised:
        retry_until_available(fail, "main")
    assert (len(met), raised.value.may_pass) == (tries, state != "28P01")


def test_a_container_that_cannot_be_asked_may_come_back(make: Make) -> None:
    box = make(*PROGRAMS, code=125)
    with pytest.raises(SqlError, match="may still run"):
        end_inside(box, "20260101-000000-dead", Host())
    with pytest.raises(StepError):
        missing_programs(box, "databases.main", Host())
