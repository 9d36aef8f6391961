"""What is Compose's own: real containers of a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.errors import CommandFailedError, ConfigurationError, PortTakenError, RefusedError, StepError
from holdfast.model import ReleaseCommand, ServiceInstance, ServiceStatus
from holdfast.system.ports import free_loopback_port
from tests import containers
from tests.contract import projects
from tests.contract.projects import Containers
from tests.proof import patience
from tests.servers import docker

STAY = "import time; print('here I am', flush=True); time.sleep(3600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(3600)"
)
SERVE = f"{sys.executable} -m http.server 8000".split()
OPERATION = "20260101-000000-upgrade-ab12"


def instance(made: Containers, name: str = "web-r1", code: str = STAY, **changes: object) -> ServiceInstance:
    usual = ServiceInstance(
        name=name,
        service="web",
        kind="web",
        release="r1",
        directory=str(made.folder),
        command=(sys.executable, "-c", code),
        environment={},
        stop_timeout_seconds=1,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


@pytest.fixture(params=projects.CLIENTS)
def made(request: pytest.FixtureRequest, folder: Path) -> Iterator[Containers]:
    with projects.project(folder, request.param) as found:
        yield found


def eventually(condition: Callable[[], bool]) -> None:
    deadline = patience.deadline(30)
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def ids(made: Containers) -> list[str]:
    return containers.of_project(made.name, client=made.client)


def policy(made: Containers, name: str) -> str:
    return made.engine("inspect", "--format={{.HostConfig.RestartPolicy.Name}}", name)


def test_values_arrive_as_they_are(made: Containers) -> None:
    greeting = "100% \"quoted\" 'text' $HOME ${HOME} $$"
    code = "import os, sys, time; print(os.environ['GREETING'], sys.argv[1], flush=True); time.sleep(3600)"
    command = (sys.executable, "-c", code, "$USER")
    made.runtime.start(instance(made, command=command, environment={"GREETING": greeting}))
    eventually(lambda: made.runtime.output_tail("web-r1").strip() == f"{greeting} $USER")


def test_a_secret_stands_in_no_file_of_ours(made: Containers) -> None:
    (made.folder / "secret").write_text("correct-horse-battery\n")
    code = "import os, time; print(len(os.environ['PASSWORD']), flush=True); time.sleep(3600)"
    made.runtime.start(instance(made, code=code, environment={"PASSWORD": f"file:{made.folder / 'secret'}"}))
    eventually(lambda: made.runtime.output_tail("web-r1").strip() == "21")
    for path in (made.folder / "s").rglob("*"):
        if path.is_file():
            assert b"correct-horse" not in path.read_bytes(), path


def test_stop_ends_one_that_ignores_the_signal(made: Containers) -> None:
    made.runtime.start(instance(made, code=STUBBORN))
    eventually(lambda: "deaf" in made.runtime.output_tail("web-r1"))
    assert made.runtime.stop("web-r1") == {"web-r1": 1}, "it had to be killed after its time"
    assert ids(made) == []
    quick = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit());"
        " print('heard', flush=True); time.sleep(3600)"
    )
    made.runtime.start(instance(made, code=quick, stop_timeout_seconds=30))
    eventually(lambda: "heard" in made.runtime.output_tail("web-r1"))
    assert made.runtime.stop("web-r1") == {}


def test_one_that_somebody_paused_is_ended(made: Containers) -> None:
    made.runtime.start(instance(made))
    made.engine("pause", *ids(made))
    made.runtime.stop("web-r1")
    assert ids(made) == []


def test_one_whose_removal_was_killed_is_removed(made: Containers) -> None:
    """At moments of its whole length. Docker's goes on without its client; Podman's is left half done."""
    arguments = [made.client, "rm", "--force", *(["--time=0"] if made.client == "podman" else [])]
    made.runtime.start(instance(made))
    begun = time.monotonic()
    subprocess.run([*arguments, *ids(made)], check=True, capture_output=True)
    length = time.monotonic() - begun
    moments = 24 if made.client == "podman" else 3
    for moment in range(moments):
        made.runtime.start(instance(made))
        removal = subprocess.Popen([*arguments, *ids(made)], stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            removal.wait(length * moment / moments)
        removal.kill()
        removal.wait()
        made.runtime.stop("web-r1")
        assert made.runtime.statuses() == {}
        assert ids(made) == []


def test_two_releases_of_a_service_run_beside_each_other(made: Containers) -> None:
    made.runtime.start(instance(made))
    made.runtime.start(instance(made, name="web-r2", release="r2"))
    assert {name: status.running for name, status in made.runtime.statuses().items()} == {
        "web-r1": True,
        "web-r2": True,
    }
    assert (made.runtime.release_of("web-r1"), made.runtime.release_of("web-r2")) == ("r1", "r2")
    made.runtime.stop("web-r1")
    assert set(made.runtime.statuses()) == {"web-r2"}
    assert made.runtime.release_of("web-r2") == "r2"


def start_theirs(made: Containers) -> None:
    """The model of the release, by the operator's own command."""
    model = json.loads((made.folder / "compose.json").read_text())
    theirs = {key: value for key, value in model.items() if key != "name"}
    (made.folder / "theirs.json").write_text(json.dumps(theirs))
    arguments = [
        *made.command,
        "--project-name",
        made.name,
        "--file",
        str(made.folder / "theirs.json"),
        "up",
        "--detach",
    ]
    subprocess.run(arguments, capture_output=True, check=True)


def test_containers_of_the_project_that_are_not_ours_stay(made: Containers) -> None:
    made.write({"web": {"command": [sys.executable, "-c", STAY]}})
    start_theirs(made)
    (theirs,) = ids(made)
    made.runtime.start(instance(made))
    assert set(made.runtime.statuses()) == {"web-r1"}
    made.runtime.shut_down()
    assert ids(made) == [theirs]
    assert made.engine("inspect", "--format={{.State.Running}}", theirs) == "true"


def test_one_that_cannot_be_removed_for_another_needs_it_is_told(made: Containers) -> None:
    """Docker removes each by itself."""
    stay = [sys.executable, "-c", STAY]
    made.write({"web": {"command": stay}, "proxy": {"command": stay, "depends_on": ["web"]}})
    start_theirs(made)
    assert made.runtime.blocked_by_dependents(["web"], ["proxy", "web"]) == {}
    blocked = made.runtime.blocked_by_dependents(["web"], [])
    assert blocked == ({f"{made.name}_web_1": f"{made.name}_proxy_1"} if made.client == "podman" else {})
    made.engine("stop", "--time=0", blocked.get(f"{made.name}_web_1", ids(made)[0]))
    assert made.runtime.blocked_by_dependents(["web"], ["proxy", "web"]) == blocked, (
        "one that does not run is stopped by nobody"
    )


def test_one_on_trial_does_not_come_back_and_one_that_is_kept_does_as_its_files_say(made: Containers) -> None:
    if made.client == "podman":
        _has_one_policy_for_good(made)
        return
    made.write({"web": {"restart": "always"}})
    made.runtime.start(instance(made, comes_back=False))
    (id,) = ids(made)
    assert policy(made, id) == "no"
    made.runtime.start(instance(made))
    assert ids(made) == [id], "it goes on as it is"
    assert policy(made, id) == "always"
    made.runtime.start(instance(made, comes_back=False))
    assert (ids(made), policy(made, id)) == ([id], "no")


def _has_one_policy_for_good(made: Containers) -> None:
    """Podman changes none; what is not wanted is removed."""
    made.write({"web": {"restart": "always"}})
    made.runtime.start(instance(made, comes_back=False))
    (id,) = ids(made)
    assert policy(made, id) == "always"
    made.runtime.start(instance(made))
    assert ids(made) == [id], "it goes on as it is"


def test_one_that_ends_is_not_started_again_while_on_trial(made: Containers) -> None:
    made.write({"web": {"restart": "always"}})
    if made.client == "podman":
        _is_begun_again_with_another_process(made)
        return
    made.runtime.start(instance(made, code="print('gone')", comes_back=False))
    eventually(lambda: made.runtime.statuses()["web-r1"].detail == "exited")
    assert made.runtime.release_of("web-r1") is None
    assert [problem.severity for problem in made.runtime.check()] == ["error"]
    assert "gone" in made.runtime.output_tail("web-r1")


def _is_begun_again_with_another_process(made: Containers) -> None:
    """By which it is known not to stay up."""
    made.runtime.start(instance(made, code="import time; time.sleep(0.3)", comes_back=False))
    seen = set()

    def looked() -> bool:
        seen.add(made.runtime.statuses()["web-r1"].pid)
        return len(seen - {None}) > 1

    eventually(looked)


def test_what_its_own_health_check_says_is_told(made: Containers) -> None:
    check = {"test": ["CMD", "ls", "/tmp/well"], "interval": "100ms", "retries": 2, "timeout": "5s"}
    made.write({"web": {"healthcheck": check}})
    made.runtime.start(instance(made))
    eventually(lambda: _health(made).detail == "unhealthy")
    assert made.runtime.statuses()["web-r1"].healthy is False
    made.engine("exec", ids(made)[0], "touch", "/tmp/well")
    eventually(lambda: _health(made).healthy is True)
    assert made.runtime.statuses()["web-r1"].detail == "running"


def _health(made: Containers) -> ServiceStatus:
    """Podman's checks are timers of systemd, which a machine for tests need not have: then they are run by hand."""
    if made.client == "podman":
        subprocess.run(["podman", "healthcheck", "run", ids(made)[0]], capture_output=True, check=False)
    return made.runtime.statuses()["web-r1"]


def test_it_is_published_on_a_loopback_port_alone(made: Containers) -> None:
    public = free_loopback_port()
    made.write({"web": {"network_mode": None, "ports": [{"target": 8000, "published": str(public)}]}})
    port = free_loopback_port()
    made.runtime.start(instance(made, command=tuple(SERVE), port=port))
    eventually(lambda: _answers(port))
    assert not _answers(public)
    bindings = json.loads(made.engine("inspect", "--format={{json .HostConfig.PortBindings}}", ids(made)[0]))
    assert bindings == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}


def test_the_port_inside_is_that_of_its_own_release(made: Containers) -> None:
    made.write({"web": {"network_mode": None, "expose": ["9000"]}})
    port = free_loopback_port()
    made.runtime.start(instance(made, command=tuple(SERVE), port=port, port_inside=8000))
    eventually(lambda: _answers(port))


def test_containers_of_another_application_are_told_and_never_ended(made: Containers) -> None:
    """As where two environments were given one project name."""
    made.runtime.start(instance(made))
    other = made.another("other@elsewhere")
    with pytest.raises(RefusedError, match="was started by Holdfast for contract@"):
        other.unmanaged()
    other.end_unmanaged()
    assert [problem.severity for problem in other.check()] == ["error"]
    assert made.runtime.statuses()["web-r1"].running


def test_a_port_that_is_taken_is_told(made: Containers) -> None:
    made.write({"web": {"network_mode": None, "expose": ["8000"]}})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortTakenError):
            made.runtime.start(instance(made, command=tuple(SERVE), port=taken.getsockname()[1]))
    made.runtime.stop("web-r1")
    assert ids(made) == []


def test_a_web_whose_port_nobody_knows_is_refused(made: Containers) -> None:
    with pytest.raises(ConfigurationError, match="the port on which"):
        made.runtime.start(instance(made, port=free_loopback_port()))


def test_an_image_that_is_no_longer_the_releases_is_refused(made: Containers) -> None:
    tag = f"holdfast-test-{made.name}"
    made.engine("tag", docker.IMAGE, tag)
    made.write({"web": {}}, tag=tag)
    made.engine("rmi", tag)
    with pytest.raises(StepError, match="does not exist"):
        made.runtime.start(instance(made))
    assert ids(made) == []


def test_an_engine_that_does_not_answer_is_told(made: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    (made.folder / "broken").write_text("not a configuration")
    with monkeypatch.context() as gone:
        gone.setenv("DOCKER_HOST", f"unix://{made.folder}/nothing")
        gone.setenv("CONTAINERS_CONF", f"{made.folder}/broken")
        with pytest.raises(StepError, match="does not answer"):
            made.runtime.start(instance(made))
        with pytest.raises(StepError, match="does not answer"):
            made.runtime.statuses()
        assert [problem.severity for problem in made.runtime.check()] == ["error"]


def test_one_that_is_about_to_end_is_not_taken_for_one_that_stays(made: Containers) -> None:
    """Killed while the engine stops a container: the engine goes on, and the container runs on for a while."""
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), sys.exit()));"
        " print('here I am', flush=True); time.sleep(3600)"
    )
    slow = instance(made, code=code, stop_timeout_seconds=20)
    made.runtime.start(slow)
    eventually(lambda: made.runtime.output_tail("web-r1") != "")
    (old,) = ids(made)
    (made.folder / "s" / "web-r1.ending").touch()
    assert not made.runtime.statuses()["web-r1"].running, "who starts what does not run would pass it over"
    client = subprocess.Popen([made.client, "stop", old], stdout=subprocess.DEVNULL)
    made.runtime.start(slow)
    client.wait(patience.limit(30))
    (new,) = ids(made)
    assert new != old
    assert made.runtime.statuses()["web-r1"].running


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"links": ["worker"]}, "has `links`"),
        ({"network_mode": "service:worker"}, "has `network_mode`"),
        ({"volumes": [{"type": "volume", "target": "/uploads"}]}, "in a volume without a name"),
        ({"cap_add": 7}, "cannot be started by itself"),
    ],
)
def test_what_cannot_run_by_itself_is_found_out_before_anything_is_stopped(
    made: Containers, more: dict[str, Any], said: str
) -> None:
    assert made.runtime.refused(str(made.folder)) == []
    if "cap_add" in more and made.client == "podman":
        return  # podman-compose reads it when it starts
    made.write({"web": more, "worker": {}})
    assert said in "; ".join(made.runtime.refused(str(made.folder)))


def test_what_two_containers_of_a_service_cannot_share_is_found_out(made: Containers) -> None:
    assert made.runtime.beside(str(made.folder), ["web", "worker"]) == ([], [])
    port = {"mode": "ingress", "target": 9000, "published": "9000", "protocol": "tcp"}
    made.write({"web": {"container_name": "shop-web"}, "worker": {"ports": [port]}})
    against, without = made.runtime.beside(str(made.folder), ["web", "worker"])
    assert len(against) == 1 and "service worker publishes port 9000" in against[0]
    assert len(without) == 1 and "not named shop-web" in without[0]
    made.write({"web": {"networks": {"default": {"ipv4_address": "10.9.8.7"}}}, "worker": {}})
    assert "fixed address 10.9.8.7" in "; ".join(made.runtime.beside(str(made.folder), ["web", "worker"])[0])


def test_an_image_that_keeps_data_of_its_own_is_refused(made: Containers) -> None:
    tag = f"{made.name}-uploads"
    tree = subprocess.run(["tar", "-c", "-T", "/dev/null"], capture_output=True, check=True).stdout
    subprocess.run(
        [made.client, "import", "--change", "VOLUME /uploads", "-", tag], input=tree, capture_output=True, check=True
    )
    made.write({"web": {}}, tag=f"{tag}:latest")
    assert "keeps /uploads in a volume without a name" in "; ".join(made.runtime.refused(str(made.folder)))
    made.write(
        {"web": {"volumes": [{"type": "volume", "source": "uploads", "target": "/uploads"}]}},
        tag=f"{tag}:latest",
        volumes={"uploads": {"name": f"{made.name}_uploads"}},
    )
    assert made.runtime.refused(str(made.folder)) == []
    made.engine("rmi", tag)


def test_a_start_that_died_in_its_middle_leaves_one_container(made: Containers) -> None:
    """Two of one name, of which the second was created and not started: there is one afterwards."""
    made.runtime.start(instance(made))
    (first,) = ids(made)
    facts = json.loads(made.engine("inspect", "--type=container", first))[0]
    labels = [f"--label={name}={value}" for name, value in facts["Config"]["Labels"].items()]
    made.engine("create", *labels, facts["Config"]["Image"], "true")
    assert len(ids(made)) == 2
    made.runtime.start(instance(made))
    assert len(ids(made)) == 1
    assert made.runtime.release_of("web-r1") == "r1"


# --- one-off commands ---------------------------------------------------------------------------------


def run(made: Containers, code: str, environment: dict[str, str] | None = None) -> str:
    environment = environment or {}
    command = ReleaseCommand("web", str(made.folder), [sys.executable, "-c", code], environment)
    return made.runtime.run_task(command, OPERATION).output_tail


def test_a_one_off_command_ends_with_its_own_exit_code_and_leaves_nothing(made: Containers) -> None:
    made.write({"web": {"container_name": f"fixed-{made.name}", "restart": "always"}})
    made.runtime.start(instance(made))
    printed = run(made, "import os; print(os.environ['TOLD'])", {"TOLD": "a $secret"})
    assert printed.splitlines()[-1] == "a $secret", "docker-compose 1.29 says before it that it makes a container"
    with pytest.raises(CommandFailedError) as failed:
        run(made, "import sys; print('half done', flush=True); sys.exit(7)")
    assert failed.value.exit_code_of_command == 7
    assert "half done" in failed.value.output_tail
    assert len(ids(made)) == 1
    assert "secret" not in "".join(path.read_text() for path in (made.folder / "s").iterdir() if path.is_file())


def test_a_one_off_command_whose_client_was_killed_is_ended(made: Containers) -> None:
    command = ReleaseCommand("web", str(made.folder), [sys.executable, "-c", STUBBORN], {})
    argv = made.runtime._task_argv(command, OPERATION)
    client = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None and b"deaf" in client.stdout.readline()
    os.kill(client.pid, signal.SIGKILL)
    client.wait()
    client.stdout.close()
    assert len(ids(made)) == 1, "what was killed was its client"
    made.runtime.end_tasks("20260101-000000-upgrade-cd34")
    assert len(ids(made)) == 1, "another operation's"
    made.runtime.end_tasks(OPERATION)
    made.runtime.end_tasks(OPERATION)
    assert ids(made) == []


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
