"""HTTP/1 messages that pass the front: which requests are refused, and which header lines go on, byte for byte.

The parser (llhttp, by httptools) refuses what two servers could read in two ways: a length together with chunks, two
lengths, line feeds alone, folded lines, control characters. This module refuses what it leaves: two hosts, other
transfer codings, another host in the request line. Header values stay bytes, because they need not be UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]

NO_BODY, BY_LENGTH, CHUNKED, UNTIL_CLOSE = range(4)

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
# A visitor's `Connection` line must not take these away from the web.
_END_TO_END = frozenset((b"host", b"content-length", b"content-type", b"cookie", b"authorization", b"expect"))
_SENDERS = frozenset((b"forwarded", b"x-real-ip"))
_SENDERS_PREFIX = b"x-forwarded-"
# A web that reads headers as CGI variables takes `_` for `-`, so these would count as the headers themselves.
_FRAMING = _HOP_BY_HOP | {b"host", b"content-length", b"trailer"}
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:\[\]%-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


class RequestHead(NamedTuple):
    method: bytes
    target: bytes
    version: str
    headers: Headers
    keep_alive: bool


class AnswerHead(NamedTuple):
    status: int
    reason: bytes
    headers: Headers


class End(NamedTuple):
    """The end of a message, with the header lines that came after its body."""

    trailers: Headers


class BadMessageError(Exception):
    """A message that is refused with a status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _tells_sender(name: bytes) -> bool:
    """Return whether a header says from whom, to which host or how a request came to an earlier proxy."""
    return name in _SENDERS or name.startswith(_SENDERS_PREFIX)


class Request:
    """A request that can be relayed."""

    def __init__(self, head: RequestHead) -> None:
        """Raise BadMessageError for a request that is not clear, or that the front does not relay."""
        self.method, self.target, self.version = head.method, head.target, head.version
        self.keep_alive = head.keep_alive
        self._headers = [(name.lower(), name, value) for name, value in head.headers]
        if self.version not in ("1.0", "1.1"):
            raise BadMessageError(505, "The front speaks HTTP/1.0 and HTTP/1.1.")
        if self.method in (b"CONNECT", b"TRACE"):
            raise BadMessageError(405, "This method is not relayed.")
        hosts = self.values(b"host")
        if len(hosts) > 1 or (not hosts and self.version == "1.1") or not all(map(_HOST.fullmatch, hosts)):
            raise BadMessageError(400, "A request needs one valid Host.")
        self._strip_host(hosts)
        self.body = self._find_body()
        connection = {token.strip().lower() for value in self.values(b"connection") for token in value.split(b",")}
        self._dropped = connection - _END_TO_END
        self.upgrades = (
            self.body == NO_BODY
            and self.version == "1.1"
            and b"upgrade" in connection
            and [value.lower() for value in self.values(b"upgrade")] == [b"websocket"]
        )
        self.expects_continue = self.version == "1.1" and any(
            value.lower() == b"100-continue" for value in self.values(b"expect")
        )

    def values(self, name: bytes) -> list[bytes]:
        return [value for lower, _, value in self._headers if lower == name]

    def text(self, name: bytes) -> str:
        return b", ".join(self.values(name)).decode("latin-1")

    def cookie(self, name: bytes) -> bytes:
        """Return the value of the first cookie of a name, or nothing."""
        for value in self.values(b"cookie"):
            for pair in value.split(b";"):
                key, _, found = pair.strip().partition(b"=")
                if key == name:
                    return found
        return b""

    def _strip_host(self, hosts: list[bytes]) -> None:
        """Make a request line of the form that proxies get into that of a server, if it names the same host."""
        if self.target.startswith(b"/") or (self.target == b"*" and self.method == b"OPTIONS"):
            return
        absolute = _ABSOLUTE.fullmatch(self.target)
        if absolute is None or [absolute[1].lower()] != [host.lower() for host in hosts]:
            raise BadMessageError(400, "The request line does not name a path of this host.")
        self.target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]

    def _find_body(self) -> int:
        codings = self.values(b"transfer-encoding")
        if codings:
            if [coding.lower() for coding in codings] != [b"chunked"] or self.version == "1.0":
                raise BadMessageError(501, "This transfer coding is not supported.")
            return CHUNKED
        return BY_LENGTH if any(value != b"0" for value in self.values(b"content-length")) else NO_BODY

    def _ends_here(self, name: bytes) -> bool:
        return name in _HOP_BY_HOP or name in self._dropped or (name == b"expect" and self.version == "1.0")

    def head_for_web(self, address: str, peer: str, trusted: bool) -> bytes:
        """Return the head that the web at an address receives, with what is said of the visitor by whom we trust."""
        lines = [b"%s %s HTTP/1.1" % (self.method, self.target)]
        senders: list[bytes] = []
        has_scheme = False
        for lower, name, value in self._headers:
            plain = lower.replace(b"_", b"-") if b"_" in lower else lower
            if _tells_sender(plain):
                if not trusted or plain is not lower:
                    continue
                if lower == b"x-forwarded-for":
                    senders.append(value)
                    continue
                has_scheme = has_scheme or lower == b"x-forwarded-proto"
            elif self._ends_here(lower) or (plain is not lower and plain in _FRAMING):
                continue
            lines.append(b"%s: %s" % (name, value))
        if not self.values(b"host"):
            lines.append(b"Host: " + address.encode())
        lines.append(b"X-Forwarded-For: " + b", ".join([*filter(None, senders), peer.encode()]))
        if not has_scheme:
            lines.append(b"X-Forwarded-Proto: http")
        if self.body == CHUNKED:
            lines.append(b"Transfer-Encoding: chunked")
        # Each request has its own connection: a web may close an idle one just when it is used again, and a POST that
        # fails this way cannot be repeated.
        options = [b"Upgrade"] if self.upgrades else [b"close"]
        if any(b"trailers" in value.lower() for value in self.values(b"te")):
            lines.append(b"TE: trailers")
            options.append(b"TE")
        if self.upgrades:
            lines.append(b"Upgrade: websocket")
        lines.append(b"Connection: " + b", ".join(options))
        return b"\r\n".join(lines) + b"\r\n\r\n"


def body_of_answer(method: bytes, answer: AnswerHead) -> int:
    """Return how the end of an answer's body is found. Raise BadMessageError."""
    if method == b"HEAD" or answer.status < 200 or answer.status in (204, 304):
        return NO_BODY
    codings = [value.lower() for name, value in answer.headers if name.lower() == b"transfer-encoding"]
    if codings:
        if codings != [b"chunked"]:
            raise BadMessageError(502, "The web's transfer coding is not supported.")
        return CHUNKED
    return BY_LENGTH if any(name.lower() == b"content-length" for name, _ in answer.headers) else UNTIL_CLOSE


def head_for_visitor(answer: AnswerHead, extra: Iterable[bytes]) -> bytes:
    """Return the head that the visitor receives, with extra lines for this connection."""
    connection = [value for name, value in answer.headers if name.lower() == b"connection"]
    dropped = {token.strip().lower() for value in connection for token in value.split(b",")} - _END_TO_END
    dropped |= _HOP_BY_HOP
    lines = [b"HTTP/1.1 %d %s" % (answer.status, answer.reason)]
    lines += [b"%s: %s" % (name, value) for name, value in answer.headers if name.lower() not in dropped]
    if answer.status in (101, 426):
        lines += [b"Upgrade: " + value for name, value in answer.headers if name.lower() == b"upgrade"]
    lines += extra
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def last_chunk(trailers: Headers) -> bytes:
    """Return the end of a body in chunks; trailers that would be about framing or the sender are left out."""
    lines = [b"0"]
    for name, value in trailers:
        plain = name.lower().replace(b"_", b"-")
        if plain not in _FRAMING and plain not in _END_TO_END and not _tells_sender(plain):
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"
