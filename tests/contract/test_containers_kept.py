"""Containers that are created before a window, and kept in it until the commit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.errors import CommandFailedError
from holdfast.model import ReleaseCommand
from holdfast.system.ports import free_loopback_port
from tests.contract import projects
from tests.contract.projects import Containers
from tests.contract.test_runtimes_compose import OPERATION, SERVE, STUBBORN, eventually, ids, instance, policy

COUNTS = (
    "import pathlib, time; place = pathlib.Path('/tmp/starts');"
    " number = int(place.read_text()) + 1 if place.exists() else 1; place.write_text(str(number));"
    " print(f'start {number}', flush=True); time.sleep(3600)"
)


@pytest.fixture(params=projects.CLIENTS)
def made(request: pytest.FixtureRequest, folder: Path) -> Iterator[Containers]:
    with projects.project(folder, request.param) as found:
        yield found


@pytest.fixture(params=["docker", pytest.param("docker-compose", marks=pytest.mark.variant("compose"))])
def ahead(request: pytest.FixtureRequest, folder: Path) -> Iterator[Containers]:
    """A project whose Compose can create containers without starting them; podman-compose gives no file to those."""
    with projects.project(folder, request.param) as found:
        yield found


def state(made: Containers, id: str) -> str:
    return made.engine("inspect", "--format={{.State.Status}}", id)


def running(made: Containers) -> list[str]:
    return [id for id in ids(made) if state(made, id) == "running"]


# --- created ahead --------------------------------------------------------------------------------------


def test_one_that_was_created_ahead_is_started_as_it_is(ahead: Containers) -> None:
    ahead.write({"web": {"restart": "always"}})
    wanted = instance(ahead, comes_back=False)
    ahead.runtime.create(wanted)
    (created,) = ids(ahead)
    assert state(ahead, created) == "created"
    assert policy(ahead, created) == "no", "the engine may be restarted before the start"
    assert not ahead.runtime.statuses()["web-r1"].running
    ahead.runtime.create(wanted)
    assert ids(ahead) == [created]
    ahead.runtime.start(wanted)
    assert running(ahead) == [created]
    ahead.runtime.start(replace(wanted, comes_back=True))
    assert (running(ahead), policy(ahead, created)) == ([created], "always")


def test_it_is_created_beside_the_one_that_serves_and_removed_by_a_stop(ahead: Containers) -> None:
    ahead.runtime.start(instance(ahead))
    (serves,) = ids(ahead)
    ahead.runtime.create(instance(ahead, name="web-r2", release="r2"))
    assert len(ids(ahead)) == 2
    assert running(ahead) == [serves]
    ahead.runtime.stop("web-r2")
    assert ids(ahead) == [serves]


def test_one_with_another_definition_by_now_is_created_again(ahead: Containers) -> None:
    ahead.runtime.create(instance(ahead, command=tuple(SERVE), port=free_loopback_port(), port_inside=8000))
    (created,) = ids(ahead)
    ahead.runtime.start(instance(ahead, command=tuple(SERVE), port=free_loopback_port(), port_inside=8000))
    assert created not in ids(ahead)
    assert len(running(ahead)) == 1


def test_a_fixed_name_is_given_to_the_new_one_once_it_is_free(ahead: Containers) -> None:
    ahead.write({"web": {"container_name": f"fixed-{ahead.name}"}})
    ahead.runtime.start(instance(ahead))
    new = instance(ahead, name="web-r2", release="r2")
    ahead.runtime.create(new)
    assert set(ahead.runtime.statuses()) == {"web-r1"}, "two cannot have the name"
    ahead.runtime.stop("web-r1", keep=True)
    assert ids(ahead) == [], "it would keep the name"
    ahead.runtime.start(new)
    assert ahead.engine("inspect", "--format={{.State.Status}}", f"fixed-{ahead.name}") == "running"


def test_several_are_created_at_once_each_with_its_own_secrets(ahead: Containers) -> None:
    services = ("web", "worker", "clock")
    ahead.write({name: {} for name in services})
    tells = "import os, time; print(len(os.environ['KEY']), flush=True); time.sleep(3600)"
    for name in ("12", "14"):
        (ahead.folder / name).write_text(f"{'secret-':x<{name}}\n")
    secrets = dict(zip(services, ("12", "14", "12"), strict=True))
    wanted = [
        replace(
            instance(ahead, name=f"{name}-r1", code=tells, environment={"KEY": f"file:{ahead.folder / secrets[name]}"}),
            service=name,
        )
        for name in services
    ]
    ahead.runtime.create(*wanted)
    created = set(ids(ahead))
    assert len(created) == 3
    ahead.runtime.start(*wanted)
    for name in services:
        eventually(lambda name=name: ahead.runtime.output_tail(f"{name}-r1").strip() == secrets[name])
    assert set(running(ahead)) == created
    for path in (ahead.folder / "s").rglob("*"):
        assert path.is_dir() or b"secret-" not in path.read_bytes(), path


# --- kept -----------------------------------------------------------------------------------------------


def test_one_that_is_kept_starts_again_as_it_was(made: Containers) -> None:
    wanted = instance(made, code=COUNTS, stop_timeout_seconds=10, stop_signal="INT")
    made.runtime.start(wanted)
    eventually(lambda: "start 1" in made.runtime.output_tail("web-r1"))
    before = ids(made)
    assert made.runtime.stop("web-r1", keep=True) == {}
    made.runtime.stop("web-r1", keep=True)
    assert (ids(made), running(made)) == (before, [])
    assert not made.runtime.statuses()["web-r1"].running
    made.runtime.start(wanted)
    eventually(lambda: "start 2" in made.runtime.output_tail("web-r1"))
    assert running(made) == before
    made.runtime.stop("web-r1", keep=True)
    made.runtime.stop("web-r1")
    assert ids(made) == []


def test_nothing_starts_a_kept_one_and_a_start_gives_its_policy_back(made: Containers) -> None:
    """Podman 4 cannot change a policy, and a machine's start may obey it: there nothing is kept."""
    made.write({"web": {"restart": "always"}})
    wanted = instance(made, code=COUNTS, stop_timeout_seconds=10, stop_signal="INT")
    made.runtime.start(wanted)
    eventually(lambda: "start 1" in made.runtime.output_tail("web-r1"))
    made.runtime.stop("web-r1", keep=True)
    kept = ids(made)
    if made.client == "podman":
        assert kept == []
        return
    assert [policy(made, id) for id in kept] == ["no"]
    made.runtime.start(wanted)
    assert [policy(made, id) for id in kept] == ["always"]


def test_one_that_had_to_be_killed_is_not_kept(made: Containers) -> None:
    """It may have left in its own files what prevents its next start, such as the file with its process id."""
    made.runtime.start(instance(made, code=STUBBORN))
    eventually(lambda: "deaf" in made.runtime.output_tail("web-r1"))
    assert made.runtime.stop("web-r1", keep=True) == {"web-r1": 1}
    assert ids(made) == []


def test_one_that_ended_by_itself_is_created_again(made: Containers) -> None:
    wanted = instance(made, code=COUNTS.replace("3600", "0.1"))
    made.runtime.start(wanted)
    eventually(lambda: made.runtime.statuses()["web-r1"].detail == "exited")
    made.runtime.start(wanted)
    eventually(lambda: "start 1" in made.runtime.output_tail("web-r1"))
    assert len(ids(made)) == 1


def test_a_stop_that_was_killed_keeps_nothing(made: Containers) -> None:
    """The engine completes the stop, and what it stopped is not known to have ended by itself."""
    wanted = instance(made, code=COUNTS)
    made.runtime.start(wanted)
    eventually(lambda: "start 1" in made.runtime.output_tail("web-r1"))
    (made.folder / "s" / "web-r1.ending").write_text("")
    before = ids(made)
    made.engine("stop", *before)
    made.runtime.start(wanted)
    assert len(running(made)) == 1
    assert running(made) != before


# --- commands -------------------------------------------------------------------------------------------


def command(made: Containers, code: str, environment: dict[str, str] | None = None) -> ReleaseCommand:
    return ReleaseCommand("web", str(made.folder), [sys.executable, "-c", code], environment or {})


def test_a_command_runs_in_the_container_that_was_created_for_it(ahead: Containers) -> None:
    told = command(ahead, "import os, socket; print(socket.gethostname(), os.environ['TOLD'])", {"TOLD": "a $secret"})
    other = command(ahead, "print('later')")
    ahead.runtime.prepare_task(told, OPERATION)
    ahead.runtime.prepare_task(other, OPERATION)
    created = ids(ahead)
    assert len(created) == 2
    printed = ahead.runtime.run_task(told, OPERATION).output_tail.split(maxsplit=1)
    assert any(id.startswith(printed[0]) for id in created)
    assert printed[1] == "a $secret\n"
    assert len(ids(ahead)) == 1, "that of the other command waits"
    ahead.runtime.end_tasks(OPERATION)
    assert ids(ahead) == []
    assert ahead.runtime.run_task(other, OPERATION).output_tail.splitlines()[-1] == "later", "it is made in time"
    files = [path for path in (ahead.folder / "s").rglob("*") if path.is_file()]
    assert not [path for path in files if b"$secret" in path.read_bytes()]


def test_another_command_does_not_run_in_it(ahead: Containers) -> None:
    ahead.runtime.prepare_task(command(ahead, "print('first')"), OPERATION)
    assert ahead.runtime.run_task(command(ahead, "print('second')"), OPERATION).output_tail.endswith("second\n")
    assert len(ids(ahead)) == 1


def test_it_is_no_container_of_the_service(ahead: Containers) -> None:
    ahead.runtime.start(instance(ahead))
    serves = ids(ahead)
    ahead.runtime.prepare_task(command(ahead, "print('first')"), OPERATION)
    assert ahead.engine("inspect", "--format={{.Id}}", ahead.runtime.container_of("web")) in serves
    assert set(ahead.runtime.statuses()) == {"web-r1"}
    assert ahead.runtime.unmanaged() == {}


def test_its_failure_names_the_command(ahead: Containers) -> None:
    failing = command(ahead, "import sys; print('half done', flush=True); sys.exit(7)")
    ahead.runtime.prepare_task(failing, OPERATION)
    with pytest.raises(CommandFailedError) as failed:
        ahead.runtime.run_task(failing, OPERATION)
    assert failed.value.exit_code_of_command == 7
    assert "half done" in failed.value.output_tail
    assert sys.executable in failed.value.what and "7" in failed.value.what
    assert ids(ahead) == []
