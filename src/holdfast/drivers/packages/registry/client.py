"""Requests to an OCI registry over HTTP, as the distribution specification has them.

Facts (OCI distribution specification 1.0, and the token authentication of Docker's registry): a registry says by 401
and `WWW-Authenticate` how it wants a client to log in; with `Bearer`, the realm gives a token for a scope. Contents may
be on another server, to which a registry redirects, and which must not get the credentials. Errors come as JSON.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import ssl
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.errors import ConfigurationError, RegistryError
from holdfast.system import durable, fault_points
from holdfast.system.host import Host

_MOST_REDIRECTS = 5
_MOST_ERROR_BYTES = 64 << 10
_MOST_TOKEN_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_QUOTED = re.compile(r'(\w+)="([^"]*)"')
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_BROKEN = (http.client.RemoteDisconnected, http.client.CannotSendRequest, BrokenPipeError, ConnectionResetError)


class Body(NamedTuple):
    """The content of a request, which can be sent again."""

    blocks: Callable[[], Iterable[bytes]]
    size: int


class Answer:
    """An answer whose content is read by its user, within a `with`."""

    def __init__(
        self, response: http.client.HTTPResponse, server: str, connection: http.client.HTTPConnection, *, kept: bool
    ) -> None:
        self._response = response
        self._server = server
        self._connection = connection
        self._kept = kept
        self.status = response.status

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        # What was not read would be taken for the next answer.
        if not self._kept or not self._response.isclosed():
            self._connection.close()

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    def blocks(self) -> Iterator[bytes]:
        """Yield the content. Raise RegistryError where the connection breaks."""
        try:
            while block := self._response.read(_BLOCK_BYTES):
                yield block
            if self._response.length:
                raise http.client.IncompleteRead(b"", self._response.length)
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self._server, error) from error

    def content(self, most_bytes: int) -> bytes:
        """Return the whole content. Raise RegistryError for a larger one."""
        found = bytearray()
        for block in self.blocks():
            found += block
            if len(found) > most_bytes:
                raise RegistryError(f"the registry {self._server} answered with more than {most_bytes >> 10} KiB")
        return bytes(found)


def unreachable(server: str, error: Exception) -> RegistryError:
    """Return the error for a registry that does not answer, or no longer does."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return RegistryError(
            f"the certificate of the registry {server} is not trusted: {error.verify_message}",
            next_step="For an authority of your own, name its certificate as `packages.registry.ca`.",
        )
    return RegistryError(
        f"the registry {server} does not answer: {error or type(error).__name__}",
        next_step="Start it, or correct `packages.registry.url`, then run the command again.",
    )


class RegistryClient:
    """Requests below `/v2/` of one registry, over one connection that is kept."""

    def __init__(
        self,
        scheme: str,
        server: str,
        host: Host,
        *,
        user: str = "",
        password: str = "",
        authority: Path | None = None,
        timeout_seconds: float = 30,
    ) -> None:
        self.server = server
        self.plain = scheme == "http"
        self._origin = (scheme, server)
        self._host = host
        self._user = user
        self._password = password
        self._authority = authority
        self._timeout_seconds = timeout_seconds
        self._kept: http.client.HTTPConnection | None = None
        self._authorizations: dict[str, str] = {}
        self._tls: ssl.SSLContext | None = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @contextlib.contextmanager
    def ask(
        self,
        method: str,
        place: str,
        what: str,
        *,
        accept: str = "",
        body: Body | None = None,
        kind: str = "",
        allowed: tuple[int, ...] = (),
    ) -> Iterator[Answer]:
        """Send a request and yield its answer, of status 2xx or an allowed one. Raise RegistryError.

        `place` is a path, or an address that the registry gave; `what` is how errors name what was asked for.
        """
        fault_points.reach(f"before {method} of {what.split()[0]}")
        address = urllib.parse.urljoin(f"{self._origin[0]}://{self._origin[1]}/", place)
        right = "pull" if method in ("GET", "HEAD") else "delete" if method == "DELETE" else "push"
        answer = self._answer(method, address, right, accept, body, kind)
        with answer:
            if not (200 <= answer.status < 300 or answer.status in allowed):
                raise self._refused(answer, method, what)
            fault_points.reach(f"after {method} of {what.split()[0]}")
            yield answer

    def _answer(self, method: str, address: str, right: str, accept: str, body: Body | None, kind: str) -> Answer:
        asked_for_login = False
        for _ in range(_MOST_REDIRECTS):
            headers = {"User-Agent": "holdfast", "Accept": accept or "*/*"}
            if kind:
                headers["Content-Type"] = kind
            ours = self._is_ours(address)
            if ours and right in self._authorizations:
                headers["Authorization"] = self._authorizations[right]
            answer = self._send(method, address, headers, body)
            if answer.status == http.HTTPStatus.UNAUTHORIZED and ours and not asked_for_login:
                asked_for_login = True
                challenge = answer.header("WWW-Authenticate")
                with answer:
                    answer.content(_MOST_ERROR_BYTES)
                self._authorizations[right] = self._login(challenge)
                continue
            if answer.status in (301, 302, 303, 307, 308) and method in ("GET", "HEAD"):
                with answer:
                    address = self._redirected(address, answer.header("Location"))
                continue
            return answer
        raise RegistryError(f"the registry {self.server} redirects too often")

    def _is_ours(self, address: str) -> bool:
        parts = urllib.parse.urlsplit(address)
        return (parts.scheme, parts.netloc) == self._origin

    def _redirected(self, address: str, location: str) -> str:
        target = urllib.parse.urljoin(address, location)
        self._require_safe(target, "redirects to")
        return target

    def _require_safe(self, address: str, verb: str) -> None:
        """Raise RegistryError for an address that is neither https nor on the loopback interface."""
        parts = urllib.parse.urlsplit(address)
        safe = parts.scheme == "https" or (parts.scheme == "http" and _LOOPBACK.fullmatch(parts.hostname or ""))
        if not safe or not parts.hostname or parts.username is not None:
            raise RegistryError(
                f"the registry {self.server} {verb} {parts.scheme}://{parts.hostname}, which is not https"
            )

    # --- connections ---------------------------------------------------------------------------------

    def _connect(self, address: str) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme == "http":
            self._require_safe(address, "uses")
            return http.client.HTTPConnection(parts.netloc, timeout=self._timeout_seconds)
        return http.client.HTTPSConnection(parts.netloc, timeout=self._timeout_seconds, context=self._context())

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self._authority is not None:
                try:
                    self._tls.load_verify_locations(self._authority)
                except (OSError, ssl.SSLError) as error:
                    raise ConfigurationError(
                        "holdfast.toml is wrong",
                        [f"packages.registry.ca: {self._authority} cannot be used: {error.strerror or error}"],
                    ) from error
        return self._tls

    def _send(self, method: str, address: str, headers: Mapping[str, str], body: Body | None) -> Answer:
        """Send one request; one on a kept connection that the registry closed meanwhile is sent again."""
        parts = urllib.parse.urlsplit(address)
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        ours = self._is_ours(address)
        kept = self._kept if ours else None
        self._kept = None if ours else self._kept
        for connection in [*([kept] if kept is not None else []), self._connect(address)]:
            sent = dict(headers)
            if body is not None:
                sent["Content-Length"] = str(body.size)
            elif method in ("POST", "PUT", "PATCH"):
                sent["Content-Length"] = "0"
            try:
                connection.request(method, path, self._checked(body) if body is not None else None, sent)
                response = connection.getresponse()
            except _BROKEN as error:
                connection.close()
                if connection is kept:
                    continue
                raise unreachable(self.server, error) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise unreachable(self.server, error) from error
            if ours:
                self._kept = connection
            return Answer(response, self.server, connection, kept=ours)
        raise RegistryError(f"the registry {self.server} closes its connections")

    def _checked(self, body: Body) -> Iterator[bytes]:
        for block in body.blocks():
            self._host.check_cancelled()
            yield block

    # --- logins --------------------------------------------------------------------------------------

    def _secret(self) -> str:
        return self._host.resolve_secret(self._password) if self._password else ""

    def _basic(self) -> str:
        value = base64.b64encode(f"{self._user}:{self._secret()}".encode()).decode()
        self._host.redactor.add(value)
        return f"Basic {value}"

    def write_login(self, path: Path) -> bool:
        """Write the login as container engines read it, for its owner alone; return False without a login."""
        if not self._user:
            return False
        found = {"auths": {self.server: {"auth": self._basic().removeprefix("Basic ")}}}
        durable.write_file(path, json.dumps(found))
        return True

    def _login(self, challenge: str) -> str:
        """Return what the registry wants as `Authorization`. Raise RegistryError where it cannot be had."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._user:
            return self._basic()
        if scheme.lower() == "bearer":
            return f"Bearer {self._token(dict(_QUOTED.findall(rest)))}"
        raise _login_failed(
            self.server, "it asks for a login" if not self._user else f"it asks for {scheme or 'nothing'}"
        )

    def _token(self, wanted: Mapping[str, str]) -> str:
        realm = wanted.get("realm", "")
        self._require_safe(realm, "asks for a token of")
        query = {key: wanted[key] for key in ("service", "scope") if key in wanted}
        address = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}"
        headers = {"User-Agent": "holdfast", "Accept": "application/json"}
        if self._user:
            headers["Authorization"] = self._basic()
        with self._send("GET", address, headers, None) as answer:
            text = answer.content(_MOST_TOKEN_BYTES)
            if answer.status != http.HTTPStatus.OK:
                raise _login_failed(self.server, f"its token service answered {answer.status}")
        try:
            found = msgspec.json.decode(text, type=_Token)
        except msgspec.DecodeError as error:
            raise RegistryError(f"the token service of {self.server} gave no token: {error}") from error
        token = found.token or found.access_token
        if not token:
            raise RegistryError(f"the token service of {self.server} gave no token")
        self._host.redactor.add(token)
        return token

    def _refused(self, answer: Answer, method: str, what: str) -> RegistryError:
        if answer.status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            return _login_failed(self.server, f"{method} of {what} answered {answer.status}", status=answer.status)
        why = _reason(answer.content(_MOST_ERROR_BYTES)) if method != "HEAD" else ""
        error = RegistryError(
            f"the registry {self.server} answered {answer.status} to {method} of {what}{why}",
            next_step="Look into the log of the registry, then run the command again.",
        )
        error.status = answer.status
        return error


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def _login_failed(server: str, why: str, *, status: int = 401) -> RegistryError:
    error = RegistryError(
        f"the registry {server} refuses this user: {why}",
        next_step="Correct `packages.registry.user` and the secret that `packages.registry.password` refers to.",
    )
    error.status = status
    return error


def _reason(text: bytes) -> str:
    """Return what a registry says of an error, as its JSON has it."""
    with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
        first = json.loads(text)["errors"][0]
        return f": {first.get('message') or first['code']}"
    return ""
