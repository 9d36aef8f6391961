"""What every Runtime driver promises, with real processes under supervisord and real containers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.drivers.protocols.runtimes import Runtime
from holdfast.drivers.runtimes.supervisor.driver import SupervisorRuntime
from holdfast.errors import ConfigurationError, StepError
from holdfast.model import ServiceInstance
from holdfast.system import processes
from holdfast.system.host import Host
from holdfast.system.processes import end_processes_with, processes_with
from tests import harnesses
from tests.harnesses.supervisor import STATE
from tests.proof import patience

STAY = "import sys, time; print('here I am', flush=True); time.sleep(3600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(3600)"
)
FORKS = (
    "import subprocess, sys, time; subprocess.Popen(['sleep', '3600']); print('forked', flush=True); time.sleep(3600)"
)


RUNTIMES = harnesses.runtimes()


def instance(name: str, folder: Path, code: str = STAY, **changes: object) -> ServiceInstance:
    made = ServiceInstance(
        name=name,
        service="web",
        kind="web",
        release="r1",
        directory=str(folder),
        command=(sys.executable, "-c", code),
        environment={"GREETING": "100% \"quoted\" 'text'"},
        stop_timeout_seconds=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(params=list(RUNTIMES))
def runtime(request: pytest.FixtureRequest, folder: Path) -> Iterator[Runtime]:
    with RUNTIMES[request.param](folder) as made:
        yield made


def eventually(condition: Callable[[], bool]) -> None:
    deadline = patience.deadline(30)
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def pid_of(runtime: Runtime, name: str) -> int | None:
    status = runtime.statuses().get(name)
    return status.pid if status is not None else None


def test_nothing_is_known_while_the_runtime_is_down(runtime: Runtime) -> None:
    assert runtime.statuses() == {}
    assert runtime.release_of("web-r1") is None
    assert runtime.output_tail("web-r1") == ""
    assert [problem.severity for problem in runtime.check()] == ["warning"]
    runtime.stop("web-r1")
    runtime.shut_down()
    assert runtime.statuses() == {}


def test_start_stop_and_shut_down_may_be_repeated(runtime: Runtime, folder: Path) -> None:
    runtime.prepare()
    runtime.prepare()
    runtime.start(instance("web-r1", folder))
    eventually(lambda: runtime.release_of("web-r1") == "r1")
    first = pid_of(runtime, "web-r1")
    assert runtime.statuses()["web-r1"].running
    runtime.start(instance("web-r1", folder))
    assert pid_of(runtime, "web-r1") == first, "a running equal one stays"
    assert runtime.check() == []
    runtime.start(instance("worker-r1", folder, service="worker", kind="worker"))
    assert set(runtime.statuses()) == {"web-r1", "worker-r1"}
    runtime.stop("web-r1")
    runtime.stop("web-r1")
    assert set(runtime.statuses()) == {"worker-r1"}
    runtime.shut_down()
    runtime.shut_down()
    assert runtime.statuses() == {}


def test_another_definition_of_a_name_replaces_the_one_before(runtime: Runtime, folder: Path) -> None:
    runtime.start(instance("web", folder))
    eventually(lambda: runtime.release_of("web") == "r1")
    first = pid_of(runtime, "web")
    runtime.start(instance("web", folder, release="r2"))
    eventually(lambda: runtime.release_of("web") == "r2")
    assert pid_of(runtime, "web") != first
    assert len(runtime.statuses()) == 1


def test_one_that_does_not_stay_up_shows_it(runtime: Runtime, folder: Path) -> None:
    """Whether it stays is for the caller to verify: the status says that it does not run."""
    try:
        runtime.start(instance("web", folder, command=("/bin/false",)))
    except StepError:
        return
    eventually(
        lambda: "web" not in runtime.statuses() or runtime.statuses()["web"].detail in ("backoff", "fatal", "exited")
    )


def test_output_is_kept(runtime: Runtime, folder: Path) -> None:
    runtime.start(instance("web", folder))
    eventually(lambda: runtime.output_tail("web") != "")
    assert "web" in runtime.outputs()
    assert b"".join(runtime.output("web", lines=10)).decode() == runtime.output_tail("web")


# --- supervisord's own --------------------------------------------------------------------------------


@pytest.fixture
def supervisor(folder: Path) -> Iterator[SupervisorRuntime]:
    environment_id = f"contract@{folder}"
    yield SupervisorRuntime(folder / STATE, environment_id, Host())
    SupervisorRuntime(folder / STATE, environment_id, Host()).shut_down()
    end_processes_with(f"HOLDFAST_INSTANCE={environment_id}/", grace_seconds=0, wait_seconds=10)


def test_a_service_sees_its_environment_and_folder(supervisor: SupervisorRuntime, folder: Path) -> None:
    code = "import os, time; print(os.getcwd(), os.environ['GREETING'], flush=True); time.sleep(3600)"
    supervisor.start(instance("web", folder, code))
    eventually(lambda: f"{folder.resolve()} 100% \"quoted\" 'text'" in supervisor.output_tail("web"))


def test_a_secret_stands_in_no_file(
    supervisor: SupervisorRuntime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "secret").write_text("correct-horse-battery\n")
    code = "import os, time; print(len(os.environ['PASSWORD']), flush=True); time.sleep(3600)"
    supervisor.start(instance("web", folder, code, environment={"PASSWORD": f"file:{folder / 'secret'}"}))
    eventually(lambda: supervisor.output_tail("web").strip() == "21")
    for path in (folder / STATE).rglob("*"):
        if path.is_file():
            assert b"correct-horse" not in path.read_bytes(), path


def test_stop_ends_one_that_ignores_the_signal_and_its_children(supervisor: SupervisorRuntime, folder: Path) -> None:
    supervisor.start(instance("deaf", folder, STUBBORN))
    supervisor.start(instance("forks", folder, FORKS))
    eventually(lambda: "deaf" in supervisor.output_tail("deaf") and "forked" in supervisor.output_tail("forks"))
    variable = f"HOLDFAST_INSTANCE=contract@{folder}"
    assert len(processes_with(f"{variable}/forks\0")) == 2
    supervisor.stop("deaf")
    supervisor.stop("forks")
    assert processes_with(f"{variable}/deaf\0") == []
    assert processes_with(f"{variable}/forks\0") == []


def test_a_killed_supervisord_leaves_no_second_service_behind(supervisor: SupervisorRuntime, folder: Path) -> None:
    supervisor.start(instance("web", folder))
    eventually(lambda: "here I am" in supervisor.output_tail("web"))
    variable = f"HOLDFAST_INSTANCE=contract@{folder}"
    (server,) = processes_with(f"{variable}/supervisord\0")
    os.kill(server.pid, 9)
    eventually(lambda: processes_with(f"{variable}/supervisord\0") == [])
    assert len(processes_with(f"{variable}/web\0")) == 1
    again = SupervisorRuntime(folder / STATE, f"contract@{folder}", Host())
    assert again.statuses() == {}
    again.start(instance("web", folder))
    eventually(lambda: again.release_of("web") == "r1")
    assert len(processes_with(f"{variable}/web\0")) == 1


def test_nothing_starts_by_itself_with_the_server(supervisor: SupervisorRuntime, folder: Path) -> None:
    supervisor.start(instance("web", folder))
    eventually(lambda: supervisor.release_of("web") == "r1")
    (server,) = processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/supervisord\0")
    os.kill(server.pid, 9)
    eventually(lambda: processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/supervisord\0") == [])
    again = SupervisorRuntime(folder / STATE, f"contract@{folder}", Host())
    again.prepare()
    assert not any(status.running for status in again.statuses().values())
    assert processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/web\0") == [], "what an earlier one left is ended"


def test_what_a_dead_server_left_is_ended_by_a_stop(supervisor: SupervisorRuntime, folder: Path) -> None:
    supervisor.start(instance("web", folder))
    eventually(lambda: supervisor.release_of("web") == "r1")
    eventually(lambda: "here I am" in supervisor.output_tail("web"))  # later there is nobody to print to
    (server,) = processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/supervisord\0")
    os.kill(server.pid, 9)
    eventually(lambda: processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/supervisord\0") == [])
    eventually(lambda: processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/web\0") != [])
    SupervisorRuntime(folder / STATE, f"contract@{folder}", Host()).stop("web")
    assert processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/web\0") == []


# As php-fpm, nginx, unicorn, or Python with setproctitle: no environment, another title, a worker, and a daemon.
DISGUISED = """
import os, sys, time

if len(sys.argv) == 1:
    os.execve("/proc/self/exe", ["php-fpm: master process", "-c", sys.orig_argv[2], "again"], {})
with open("pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
if not os.fork():
    if sys.argv[1:] == ["again"] and not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
time.sleep(3600)
"""


def disguised(folder: Path, count: int = 4) -> list[int]:
    """Return its processes once all of them have written themselves down."""
    path = folder / "pids"
    eventually(lambda: path.exists() and len(set(path.read_text().split())) >= count)
    return [int(word) for word in path.read_text().split()]


def alive(pids: list[int]) -> list[int]:
    table = processes.table()
    return [pid for pid in pids if pid in table and not table[pid].ended]


def test_a_service_that_gives_itself_another_title_is_known(supervisor: SupervisorRuntime, folder: Path) -> None:
    supervisor.start(instance("web", folder, DISGUISED))
    pids = disguised(folder, 3)
    assert Path(f"/proc/{pids[0]}/environ").read_bytes() == b""
    assert supervisor.release_of("web") == "r1"
    supervisor.stop("web")
    assert alive(pids) == []


@pytest.mark.parametrize("then", ["start", "stop", "shut_down"])
def test_what_a_dead_server_left_is_ended_whatever_it_calls_itself(
    supervisor: SupervisorRuntime, folder: Path, then: str
) -> None:
    supervisor.start(instance("web", folder, DISGUISED))
    pids = disguised(folder, 3)
    (server,) = processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/supervisord\0")
    os.kill(server.pid, 9)
    if then == "start":
        (folder / "pids").unlink()
        supervisor.start(instance("web", folder, DISGUISED))
        assert len(alive(disguised(folder, 3))) == 3
    elif then == "stop":
        supervisor.stop("web")
    else:
        supervisor.shut_down()
    assert alive(pids) == []


def test_what_a_dead_server_left_is_ended_where_its_keeper_died_too(
    supervisor: SupervisorRuntime, folder: Path
) -> None:
    supervisor.start(instance("web", folder, DISGUISED))
    pids = disguised(folder, 3)
    (server,) = processes_with(f"HOLDFAST_INSTANCE=contract@{folder}/supervisord\0")
    record = folder / STATE / "processes"
    if "\ngroup " not in record.read_text():
        pytest.skip("only a control group tells then, and this user may make none: run as root")
    os.kill(processes.parent_of(server.pid), 9)
    os.kill(server.pid, 9)
    os.kill(pids[0], 9)  # its workers have the keeper for a parent, which is dead
    supervisor.prepare()
    assert alive(pids) == []


def test_one_that_had_to_be_killed_is_known_from_one_that_ended(supervisor: SupervisorRuntime, folder: Path) -> None:
    supervisor.start(instance("web", folder, STUBBORN))
    supervisor.start(instance("webber", folder, stop_timeout_seconds=60))
    eventually(lambda: "deaf" in supervisor.output_tail("web") and "here" in supervisor.output_tail("webber"))
    assert supervisor.stop("webber", "web") == {"web": 1}
    assert supervisor.stop("web") == {}, "it is gone"


def test_a_daemon_that_a_service_left_ends_with_the_last_service(supervisor: SupervisorRuntime, folder: Path) -> None:
    leaves = "import os, time; os.system('env -i setsid sh -c \"echo $$ > pids; exec sleep 3600\" &'); time.sleep(3600)"
    supervisor.start(instance("web", folder, leaves))
    supervisor.start(instance("front", folder, release=""))
    pids = disguised(folder, 1)
    supervisor.stop("web")
    assert alive(pids) == []
    assert supervisor.statuses()["front"].running


def test_a_state_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="too long"):
        SupervisorRuntime(folder / ("x" * 100), "contract", Host())
