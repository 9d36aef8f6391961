"""Questions to a Docker engine, and changes of containers, by its HTTP API on its unix socket.

A question costs a millisecond; the same one by the client program costs 30 to 50 ms of a processor, and an upgrade asks
some hundred times. Several changes are under way side by side, each on a connection of its own. Facts from the
documentation of the API: paths carry its version, which the engine names in the answer to `_ping`; the client prints
the answers for containers as they are; a container that is in the wanted state already answers 304. The client sends
the same requests, so a change whose sender was killed goes on in the engine as one of a killed client does.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar, cast
from urllib.parse import quote, urlencode

from holdfast.containers.facts import Known, KnownImage, ListedImage
from holdfast.errors import CommandFailedError
from holdfast.system import fault_points

_SOCKET = "/var/run/docker.sock"
_UNIX = "unix://"
_SECONDS = 60.0
_NOT_FOUND = 404
_OK = 200
_CHANGED = (200, 201, 204, 304)

_AnswerT = TypeVar("_AnswerT")


class _Listed(TypedDict):
    Id: str


class _Information(TypedDict):
    DockerRootDir: str


@dataclass(frozen=True)
class Change:
    """A change of one container or image: its path in the API, and what is sent with it."""

    id: str
    path: str
    method: str = "POST"
    body: Mapping[str, object] | None = None
    seconds: float = _SECONDS
    """How long its answer may take."""
    may_be_gone: bool = False
    """Whether something that does not exist needs no change."""

    @classmethod
    def container(
        cls,
        id: str,
        verb: str,
        *,
        body: Mapping[str, object] | None = None,
        seconds: float = _SECONDS,
        may_be_gone: bool = False,
    ) -> Change:
        return cls(id, f"containers/{quote(id, safe='')}/{verb}", "POST", body, seconds, may_be_gone)

    @classmethod
    def removal(cls, id: str) -> Change:
        return cls(id, f"containers/{quote(id, safe='')}?force=1", "DELETE", may_be_gone=True)

    @classmethod
    def name(cls, image: str, name: str) -> Change:
        """Return the change that gives an image a name with its tag."""
        repository, _, tag = name.rpartition(":")
        return cls(name, f"images/{quote(image, safe=':')}/tag?{urlencode({'repo': repository, 'tag': tag})}")

    @classmethod
    def nameless(cls, name: str, *, prune: bool) -> Change:
        """Return the change that takes a name away; an image whose last name it was is deleted."""
        return cls(name, f"images/{quote(name, safe='/:')}?noprune={int(not prune)}", "DELETE")


class EngineApi:
    """The API of the engine on a socket. Raise CommandFailedError where it does not answer, or answers an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> EngineApi | None:
        """Return the API of the engine that the client would reach; None if only the client reaches it."""
        path = _socket_of(environment)
        try:
            found = path is not None and stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.W_OK)
        except OSError:
            found = False
        return cls(path) if found and path is not None else None

    def storage(self) -> str:
        """Return the folder in which the engine keeps images and containers."""
        with self._connected() as connection:
            found = self._get(connection, _Information, "info")
            return found["DockerRootDir"] if found is not None else ""

    def answers(self) -> bool:
        try:
            with self._connected() as connection:
                return self._answer(connection, "/_ping").status == _OK
        except CommandFailedError:
            return False

    # --- containers and images ---------------------------------------------------------------------

    def containers(self, labels: Sequence[str], *, all: bool = True) -> list[Known]:
        """Return the engine's facts about the containers with all of these labels; with `all`, also stopped ones."""
        filters = json.dumps({"label": list(labels)})
        with self._connected() as connection:
            listed = self._get(connection, list[_Listed], "containers/json", all=str(int(all)), filters=filters)
            return self._inspected(connection, [item["Id"] for item in listed or []])

    def inspected(self, ids: Sequence[str]) -> list[Known]:
        """Return the facts about those of these containers, by id or name, that exist."""
        with self._connected() as connection:
            return self._inspected(connection, ids)

    def _inspected(self, connection: http.client.HTTPConnection, ids: Sequence[str]) -> list[Known]:
        found = (self._get(connection, Known, f"containers/{quote(id, safe='')}/json") for id in ids)
        return [item for item in found if item is not None]

    def images(self, **filters: Sequence[str]) -> list[ListedImage]:
        """Return the images that match, without the intermediate ones of builds."""
        given = json.dumps({name: list(values) for name, values in filters.items()})
        with self._connected() as connection:
            return self._get(connection, list[ListedImage], "images/json", filters=given) or []

    def image(self, name: str) -> KnownImage | None:
        """Return the facts about one image, by name or id; None where there is none."""
        with self._connected() as connection:
            return self._get(connection, KnownImage, f"images/{quote(name, safe='/:@')}/json")

    def change(self, what: str, changes: Sequence[Change]) -> dict[str, str]:
        """Make changes side by side; return by id what went wrong. `what` names them all."""
        fault_points.reach(f"before engine {what}")
        failed: dict[str, str] = {}
        with ExitStack() as stack:
            sent = []
            for item in changes:
                try:
                    connection = stack.enter_context(self._connected(item.seconds))
                    self._send(connection, item)
                    sent.append((item, connection))
                except (CommandFailedError, OSError, http.client.HTTPException) as error:
                    failed[item.id] = _reason(error)
            fault_points.reach(f"during engine {what}")
            for item, connection in sent:
                try:
                    answer = connection.getresponse()
                    text = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    failed[item.id] = _reason(error)
                    continue
                if answer.status not in _CHANGED and not (item.may_be_gone and answer.status == _NOT_FOUND):
                    failed[item.id] = _message(text)
        fault_points.reach(f"after engine {what}")
        return failed

    def _send(self, connection: http.client.HTTPConnection, change: Change) -> None:
        headers = {"Host": "docker", "Content-Type": "application/json"}
        body = json.dumps(change.body) if change.body is not None else None
        connection.request(change.method, f"{self._prefix()}/{change.path}", body=body, headers=headers)

    # --- requests ----------------------------------------------------------------------------------

    def _prefix(self) -> str:
        return f"/v{self._version}" if self._version else ""

    @contextmanager
    def _connected(self, seconds: float = _SECONDS) -> Iterator[http.client.HTTPConnection]:
        connection = _Connection(self._path, seconds)
        try:
            if not self._version:
                answer = self._answer(connection, "/_ping")
                self._version = answer.getheader("Api-Version") or ""
                answer.read()
            yield connection
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailedError(
                "the Docker engine does not answer",
                exit_code_of_command=1,
                output_tail=f"{self._path}: {error or type(error).__name__}",
            ) from error
        finally:
            connection.close()

    def _get(
        self, connection: http.client.HTTPConnection, kind: type[_AnswerT], path: str, **query: str
    ) -> _AnswerT | None:
        """Return the answer, which the engine documents as this kind; None for an object that does not exist."""
        place = f"{self._prefix()}/{path}"
        answer = self._answer(connection, f"{place}?{urlencode(query)}" if query else place)
        text = answer.read()
        if answer.status == _NOT_FOUND:
            return None
        if answer.status != _OK:
            raise CommandFailedError(
                f"the Docker engine answers {answer.status} to {path}",
                exit_code_of_command=1,
                output_tail=text[-2000:].decode(errors="replace"),
            )
        try:
            return cast(_AnswerT, json.loads(text))  # of the engine, which is trusted as its client is
        except ValueError as error:
            raise http.client.HTTPException(f"{path}: an answer that is not JSON") from error

    @staticmethod
    def _answer(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
        connection.request("GET", path, headers={"Host": "docker"})
        return connection.getresponse()


class _Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("docker", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _reason(error: Exception) -> str:
    return str(getattr(error, "output_tail", "") or error or type(error).__name__)


def _message(text: bytes) -> str:
    """Return what an answer of the engine says is wrong."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[-2000:].decode(errors="replace")


def _socket_of(environment: Mapping[str, str]) -> Path | None:
    """Return the socket that the client uses with this environment; None for another kind of address.

    DOCKER_HOST goes before a context, and the context of DOCKER_CONTEXT before that of the client's configuration.
    """
    address = environment.get("DOCKER_HOST", "")
    if address:
        return Path(address.removeprefix(_UNIX)) if address.startswith(f"{_UNIX}/") else None
    context = environment.get("DOCKER_CONTEXT") or _configured_context(environment)
    return Path(_SOCKET) if context in ("", "default") else None


def _configured_context(environment: Mapping[str, str]) -> str:
    folder = environment.get("DOCKER_CONFIG") or os.path.join(environment.get("HOME", ""), ".docker")
    try:
        return str(json.loads(Path(folder, "config.json").read_text()).get("currentContext", ""))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, AttributeError):
        return "unknown"
