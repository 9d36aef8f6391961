"""The engine's API gives the answers that its client program gives, and an answer that is none is an error."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.containers.api import EngineApi
from holdfast.containers.docker import Engine
from holdfast.containers.facts import Known
from holdfast.errors import CommandFailedError
from holdfast.system.host import Host
from tests.proof import patience
from tests.servers import docker


class ByClient(Engine):
    has_api = False


LABEL = "holdfast.test.api"
_NAMES = ("api-runs", "api-ended", "api-created")


def _ordered(found: list[Known]) -> list[Known]:
    """The engine answers the mounts of a container in another order each time."""
    return [{**item, "Mounts": sorted(item["Mounts"], key=lambda mount: mount["Destination"])} for item in found]


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def engines() -> Iterator[tuple[Engine, Engine]]:
    """The engine by its API and by its client, with containers of three states and images with and without a name."""
    docker.engine()
    mounts = [f"--volume={one}" for one in docker.machine_mounts()]
    usual = ["--network=none", f"--label={LABEL}=yes", '--label=other=odd value, "quoted"', *mounts]
    try:
        _docker("run", "--detach", f"--name={_NAMES[0]}", *usual, docker.IMAGE, "sleep", "600")
        _docker("run", f"--name={_NAMES[1]}", *usual, docker.IMAGE, "true")
        _docker("create", f"--name={_NAMES[2]}", *usual, docker.IMAGE, "true")
        recipe = f"FROM {docker.IMAGE}\nLABEL {LABEL}=1\nVOLUME /data /more\n"
        for text in (recipe, recipe.replace("LABEL", "ENV A=1\nLABEL")):  # the first one loses its name to the second
            arguments = ["docker", "build", "--quiet", "--tag=api-image:one", "-"]
            subprocess.run(arguments, input=text, text=True, capture_output=True, check=True)
        _docker("tag", "api-image:one", "registry.example:5000/shop/api-image:two")
        api, client = Engine("docker", Host()), ByClient("docker", Host())
        assert api._api is not None
        assert client._api is None
        yield api, client
    finally:
        subprocess.run(["docker", "rm", "--force", *_NAMES], capture_output=True, check=False)
        ids = subprocess.run(
            ["docker", "image", "ls", "--quiet", f"--filter=label={LABEL}"], capture_output=True, text=True, check=True
        ).stdout.split()
        if ids:
            subprocess.run(["docker", "rmi", "--force", *dict.fromkeys(ids)], capture_output=True, check=True)


def test_both_say_the_same(engines: tuple[Engine, Engine]) -> None:
    api, client = engines
    found = _ordered(client.containers(f"{LABEL}=yes"))
    assert len(found) == 3
    assert _ordered(api.containers(f"{LABEL}=yes")) == found
    assert _ordered(api.containers(f"{LABEL}=yes", 'other=odd value, "quoted"')) == found
    assert api.containers(f"{LABEL}=no") == client.containers(f"{LABEL}=no") == []
    ids = [item["Id"] for item in found]
    some = [ids[1], "0" * 64, ids[0]]
    assert _ordered(api.inspected(some)) == _ordered(client.inspected(some))
    assert _ordered(api.inspected([_NAMES[0], "no such name"])) == _ordered(client.inspected([_NAMES[0]]))
    running = {item["Id"] for item in client.running()}
    assert {item["Id"] for item in api.running()} == running
    assert {item["Id"] for item in found if item["State"]["Running"]} < running | {""}
    for name in ("api-image:one", "api-image", "registry.example:5000/shop/api-image:two", "no-such-image:one", "api"):
        assert sorted(api.names(name)) == sorted(client.names(name)), name
        assert api.image(name) == client.image(name), name
    assert set(api.image_ids()) == set(client.image_ids())
    assert api.nameless(f"{LABEL}=1") == client.nameless(f"{LABEL}=1") != []
    assert api.volumes_of("api-image:one") == client.volumes_of("api-image:one") == ["/data", "/more"]
    assert api.volumes_of("registry.example:5000/shop/api-image:two") == ["/data", "/more"]
    assert api.volumes_of(docker.IMAGE) == client.volumes_of(docker.IMAGE) == []
    assert api.storage() == client.storage() != ""
    for engine in engines:
        engine.prepare()
        with pytest.raises(CommandFailedError):
            engine.volumes_of("no-such-image:one")


# --- what is no answer --------------------------------------------------------------------------------

_PONG = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK"


@contextmanager
def answering(folder: Path, *answers: bytes) -> Iterator[tuple[EngineApi, list[str]]]:
    """Serve these answers, one to each request; the connection ends after the last one."""
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "engine"))
        listener.listen()
        listener.settimeout(patience.limit(1))

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                for answer in answers:
                    asked.append(lines.readline().split()[1].decode())
                    while lines.readline().strip():
                        pass
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield EngineApi(folder / "engine"), asked
        finally:
            thread.join()


def _json(value: object, status: str = "200 OK") -> bytes:
    text = json.dumps(value).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(text), text)


def test_a_container_that_is_gone_is_left_out(folder: Path) -> None:
    with answering(folder, _PONG, _json({"message": "gone"}, "404 Not Found"), _json({"Id": "b"})) as (api, asked):
        assert api.inspected(["a", "b"]) == [{"Id": "b"}]
    assert asked == ["/_ping", "/v1.41/containers/a/json", "/v1.41/containers/b/json"]


@pytest.mark.parametrize(
    "answer",
    [
        _json({"message": "cannot read the store"}, "500 Internal Server Error"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n[{",  # the engine died in the middle
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"what\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_answer_is_never_taken_for_no_container(folder: Path, answer: bytes) -> None:
    with answering(folder, _PONG, answer) as (api, _), pytest.raises(CommandFailedError, match="Docker engine"):
        api.containers(["a=b"])


def test_a_socket_that_nobody_serves_is_an_error(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "engine"))
    with pytest.raises(CommandFailedError, match="does not answer"):
        EngineApi(folder / "engine").images()


def test_the_engine_that_the_client_would_reach_is_asked_or_none(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "engine"))
        address = {"DOCKER_HOST": f"unix://{folder}/engine"}
        assert EngineApi.of(address) is not None
        assert EngineApi.of({"DOCKER_CONTEXT": "elsewhere", **address}) is not None, "the address goes first"
        for environment in (
            {"DOCKER_HOST": f"unix://{folder}/none"},
            {"DOCKER_HOST": "tcp://127.0.0.1:2375"},
            {"DOCKER_HOST": "ssh://somebody@example.invalid"},
            {"DOCKER_CONTEXT": "elsewhere"},
        ):
            assert EngineApi.of(environment) is None, environment


@pytest.mark.parametrize(("text", "asked"), [("{}", True), ('{"currentContext": "default"}', True), ("[", False)])
def test_a_context_of_the_clients_configuration_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, asked: bool
) -> None:
    monkeypatch.setattr("holdfast.containers.api._SOCKET", str(folder / "engine"))
    (folder / "config.json").write_text(text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "engine"))
        assert (EngineApi.of({"DOCKER_CONFIG": str(folder)}) is not None) is asked
        (folder / "config.json").write_text('{"currentContext": "remote"}')
        assert EngineApi.of({"DOCKER_CONFIG": str(folder)}) is None
