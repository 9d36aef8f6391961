"""A client of a search server, by plain HTTP: every reply is read into a type, every failure is an error of Holdfast.

Facts from the documentation, tried on 6.8, 7.17, 8.19 and 9.1: `GET /` is not answered by every server, `GET /_nodes`
is; an expression with a wildcard matches indices and aliases alike, except for a deletion.
"""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from holdfast.config.schema import Index
from holdfast.errors import StepError
from holdfast.system import fault_points

_SECONDS = 30.0
_MOST_BYTES = 64 << 20
_T = TypeVar("_T")
JsonObject = dict[str, object]


class SearchError(StepError):
    """An answer of the server that says no; `status` is that of HTTP."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(what)
        self.status = status


class _Cause(msgspec.Struct):
    type: str = ""
    reason: str | None = ""


class _Refusal(msgspec.Struct):
    error: _Cause | str = ""


class _Node(msgspec.Struct):
    version: str = ""


class _Nodes(msgspec.Struct):
    nodes: dict[str, _Node] = {}


class SearchClient:
    """One server of a search index, opened by its section of the configuration."""

    def __init__(self, section: str, settings: Index, ca: Path | None, resolve: Callable[[str], str]) -> None:
        """Create a client; `resolve` returns the value of a secret reference."""
        self._section = section
        self._settings = settings
        self._ca = ca
        self._resolve = resolve
        self._version: tuple[int, ...] = ()

    @property
    def version(self) -> tuple[int, ...]:
        """Return the oldest version among the nodes of the cluster."""
        if not self._version:
            found = self.ask(_Nodes, "GET", "/_nodes/_all/http?filter_path=nodes.*.version")
            versions = [tuple(map(int, node.version.split("-")[0].split("."))) for node in found.nodes.values()]
            if not versions:
                raise StepError(f"indices.{self._section}: the server does not say which version it is")
            self._version = min(versions)
        return self._version

    @property
    def product(self) -> str:
        return {"elasticsearch": "Elasticsearch", "opensearch": "OpenSearch"}[self._settings.kind]

    def ask(
        self, kind: type[_T], method: str, path: str, body: object = None, *, timeout_seconds: float = _SECONDS
    ) -> _T:
        """Return the server's reply. Raise SearchError where it refuses, StepError where it cannot be reached."""
        status, content = self._exchange(method, path, body, timeout_seconds)
        if not 200 <= status < 300:
            raise SearchError(f"indices.{self._section}: {method} {path.partition('?')[0]}: {_why(content)}", status)
        try:
            return msgspec.json.decode(content or b"{}", type=kind)
        except msgspec.DecodeError as error:
            raise StepError(f"indices.{self._section}: {method} {path}: unexpected answer: {error}") from error

    def tell(self, method: str, path: str, body: object = None) -> None:
        """Do the same where the reply says nothing else."""
        self.ask(JsonObject, method, path, body)

    def _exchange(self, method: str, path: str, body: object, timeout_seconds: float) -> tuple[int, bytes]:
        url = urlsplit(self._settings.url)
        connection = self._connection(url.hostname or "", url.port, timeout_seconds)
        data = msgspec.json.encode(body) if body is not None else None
        point = f"{method} {path.partition('?')[0]}"
        if method != "GET":
            fault_points.reach(f"before {point}")
        try:
            connection.request(method, path, data, self._headers(has_body=data is not None))
            response = connection.getresponse()
            status, content = response.status, response.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise StepError(
                f"indices.{self._section}: {self._settings.url} cannot be reached: {error or type(error).__name__}",
                next_step="Start the search server, or correct `url`.",
            ) from error
        finally:
            connection.close()
        if method != "GET":
            fault_points.reach(f"after {point}")
        return status, content

    def _connection(self, host: str, port: int | None, timeout_seconds: float) -> http.client.HTTPConnection:
        if not self._settings.url.startswith("https://"):
            return http.client.HTTPConnection(host, port or 9200, timeout=timeout_seconds)
        context = ssl.create_default_context(cafile=str(self._ca) if self._ca is not None else None)
        return http.client.HTTPSConnection(host, port or 443, timeout=timeout_seconds, context=context)

    def _headers(self, *, has_body: bool) -> Mapping[str, str]:
        headers = {"Accept": "application/json"}
        if has_body:
            headers["Content-Type"] = "application/json"
        if self._settings.api_key:
            headers["Authorization"] = f"ApiKey {self._resolve(self._settings.api_key)}"
        elif self._settings.user:
            account = f"{self._settings.user}:{self._resolve(self._settings.password)}"
            headers["Authorization"] = f"Basic {base64.b64encode(account.encode()).decode()}"
        return headers


def _why(content: bytes) -> str:
    """Return the reason that a refusal gives, in one line."""
    try:
        error = msgspec.json.decode(content, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content[:200].decode(errors="replace")
    text = error if isinstance(error, str) else f"{error.type}: {error.reason}"
    return " ".join(text.split()) or content[:200].decode(errors="replace")
