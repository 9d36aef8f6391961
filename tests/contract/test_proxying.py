"""What passes between a visitor and the web: the front changes nothing that matters, and an operator's proxy little.

A test that a product cannot pass by its nature is an expected failure for it, with the reason in LACKS.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from holdfast.drivers.gates.front.driver import FrontGate
from holdfast.system.ports import free_loopback_port
from tests.contract.raw_http import OK, Call, RawVisitor, RawWeb, ask, frame
from tests.proof import patience
from tests.servers.caddy import CaddyServer
from tests.servers.nginx import NginxServer

_NGINX_LOCATION = """
        client_max_body_size 0;
        location / {
            if ($holdfast_closed) { rewrite ^ $holdfast_page last; }
            proxy_pass http://$holdfast_web;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $holdfast_connection;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_request_buffering off;
            proxy_buffering off;
        }
        set $holdfast_connection close;
        if ($http_upgrade) { set $holdfast_connection upgrade; }
"""
LACKS = {
    ("nginx", "trailers"): "nginx 1.22 drops trailers",
    ("nginx", "anonymity"): "nginx names itself in the header Server",
    ("nginx", "websockets only"): "nginx passes every upgrade, or none",
    ("nginx", "interim answers"): "nginx 1.22 drops 103 Early Hints",
    ("nginx", "refusal before the body"): "nginx answers 100 Continue itself, before it asks the web",
    ("nginx", "early refusals"): "nginx may answer 502 where the web closes before it has the body",
    ("nginx", "header names"): "nginx drops header names with a dot or underscore, as `ignore_invalid_headers` says",
    ("nginx", "hop-by-hop"): "nginx passes header lines that `Connection` names",
    ("caddy", "anonymity"): "Caddy names itself in the header Server",
    ("caddy", "websockets only"): "Caddy passes every upgrade",
    ("caddy", "odd paths"): "Caddy escapes characters of a path that RFC 3986 does not allow",
    ("caddy", "header names"): "Caddy changes the case of header names",
    ("caddy", "early refusals"): "Caddy 2.6 may wait for the rest of the body",
    ("caddy", "trailers"): "Caddy 2.6 drops the trailers of a request",
    ("caddy", "cut chunks"): "Caddy 2.6 ends an answer in chunks that was cut as if it were whole",
    ("caddy", "connect"): "Caddy passes CONNECT on",
    ("caddy", "refusal before the body"): "Caddy answers 100 Continue itself, when it reads the body",
}


class Proxy:
    """A running proxy before a web of bytes."""

    def __init__(
        self,
        name: str,
        port: int,
        web: RawWeb,
        end: Callable[[], None],
        pid: int = 0,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.port, self.web, self.end, self.pid, self.stop = name, port, web, end, pid, stop

    def needs(self, what: str) -> None:
        if reason := LACKS.get((self.name, what)):
            pytest.xfail(reason)


def start_front(
    folder: Path, web: RawWeb, trusted: list[str] | None = None, program: Sequence[str] | None = None
) -> Proxy:
    port = free_loopback_port()
    gate = FrontGate(folder, f"127.0.0.1:{port}", drain_seconds=0.1, trusted_proxies=trusted)
    gate.route("r1", web.address)
    instance = gate.instance()
    assert instance is not None
    with open(folder / "front.out", "wb") as output:
        argv = [*program, str(folder)] if program else instance.command
        process = subprocess.Popen(argv, env=dict(os.environ), stdout=output, stderr=output)

    stopped = threading.Event()

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            process.send_signal(signal.SIGTERM)

    def end() -> None:
        stop()
        assert process.wait(patience.limit(30)) == 0
        assert (folder / "front.out").read_text() == "", "nothing that a visitor or a web does is a traceback"

    patience.until(gate.answers)
    return Proxy("front", port, web, end, process.pid, stop)


def start_nginx(folder: Path, web: RawWeb) -> Proxy:
    server = NginxServer(folder, web.address, drain_seconds=0.1, location=_NGINX_LOCATION)
    server.gate.route("r1", web.address)
    return Proxy("nginx", server.port, web, server.end)


def start_caddy(folder: Path, web: RawWeb) -> Proxy:
    server = CaddyServer(folder, web.address, drain_seconds=0.1)
    server.gate.route("r1", web.address)
    return Proxy("caddy", server.port, web, server.end)


PROXIES: dict[str, Callable[[Path, RawWeb], Proxy]] = {
    "front": start_front,
    "nginx": start_nginx,
    "caddy": start_caddy,
}


@pytest.fixture(scope="module", params=list(PROXIES))
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    web = RawWeb()
    try:
        proxy = PROXIES[request.param](tmp_path_factory.mktemp("gate"), web)
        yield proxy
        proxy.end()
    finally:
        web.close()


@pytest.fixture
def proxy(started: Proxy) -> Iterator[Proxy]:
    started.web.reset()
    yield started
    assert started.web.failures == []


def get(path: bytes = b"/", *lines: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    head = [b"%s %s HTTP/%s" % (method, path, version), b"Host: site.example", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n"


# --- the request --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/a%2Fb/%7Euser/%41/x%3Ay/../z?p=%7E&r=+%2B", "paths"),
        (b"//evil/x", "paths"),
        (b"/static/../admin", "paths"),
        (b"/?a=%2F&&b", "paths"),
        (b"/x?r=%zz", "paths"),
        (b"/a[1]|b?[x]=|", "odd paths"),
    ],
)
def test_path_and_query_arrive_as_they_were_sent(proxy: Proxy, path: bytes, kind: str) -> None:
    proxy.needs(kind)
    assert ask(proxy.port, get(path)).status == 200
    assert proxy.web.call().line == b"GET %s HTTP/1.1" % path


def test_header_lines_arrive_in_their_order_and_byte_for_byte(proxy: Proxy) -> None:
    sent = [b"X-Bytes: \xff\xfe\xe4", b"X-Many: 1", b"X-Many: 2", b"X-Empty:", b"Cookie: a=\xe9; b=2", b"X-Last: a  b"]
    ask(proxy.port, get(b"/", *sent))
    call = proxy.web.call()
    for name in ("x-bytes", "x-many", "cookie", "x-empty", "x-last"):
        wanted = [line.partition(b":")[2].strip() for line in sent if line.lower().startswith(name.encode() + b":")]
        assert call.values(name) == wanted


def test_header_names_arrive_as_they_were_written(proxy: Proxy) -> None:
    proxy.needs("header names")
    sent = [b"x-LOWER: 1", b"X.dot: 2", b"X_under: 3"]
    ask(proxy.port, get(b"/", *sent))
    assert [line for line in proxy.web.call().lines if line in sent] == sent


def test_a_visitor_cannot_take_away_the_host(proxy: Proxy) -> None:
    ask(proxy.port, get(b"/", b"Connection: Host, Cookie, close", b"Cookie: a=1"))
    call = proxy.web.call()
    assert call.values("host") == [b"site.example"]
    if proxy.name != "caddy":  # which takes away the cookie
        assert call.values("cookie") == [b"a=1"]


def test_lines_for_the_next_hop_end_at_it(proxy: Proxy) -> None:
    proxy.needs("hop-by-hop")
    ask(proxy.port, get(b"/", b"Connection: X-Mine, close", b"X-Mine: 1", b"Keep-Alive: 5", b"Proxy-Connection: x"))
    call = proxy.web.call()
    assert [call.values(name) for name in ("x-mine", "keep-alive", "proxy-connection")] == [[], [], []]


def test_a_body_in_chunks_arrives_whole(proxy: Proxy) -> None:
    bodies: list[bytes] = []

    def answer(call: Call) -> None:
        bodies.append(call.body())
        call.send(OK)

    proxy.web.answer = answer
    chunks = b"5\r\nhello\r\n1;name=value\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
    assert ask(proxy.port, get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + chunks).body == b"ok"
    assert bodies == [b"hello world"]


def test_trailers_pass_both_ways(proxy: Proxy) -> None:
    proxy.needs("trailers")
    met: list[tuple[bytes, list[bytes]]] = []

    def answer(call: Call) -> None:
        met.append(call.chunked())
        call.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"
        )

    proxy.web.answer = answer
    lines = [b"TE: trailers", b"Connection: TE, close", b"Transfer-Encoding: chunked", b"Trailer: X-Check"]
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get(b"/", *lines, method=b"POST") + b"3\r\nabc\r\n0\r\nX-Check: 42\r\n\r\n")
        answered = visitor.rest()
    assert met == [(b"abc", [b"X-Check: 42"])]
    assert answered.endswith(b"0\r\nX-Sum: 7\r\n\r\n")
    assert proxy.web.call().values("te") == [b"trailers"]


def test_a_large_upload_is_streamed(proxy: Proxy) -> None:
    size = 64 << 20

    def answer(call: Call) -> None:
        call.count(size)
        call.send(OK)

    proxy.web.answer = answer
    block = bytes(1 << 20)
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get(b"/", b"Content-Length: %d" % size, method=b"PUT"))
        for _ in range(size // len(block)):
            visitor.send(block)
        assert visitor.answer().body == b"ok"
    if proxy.pid:
        assert peak_mb(proxy.pid) < 60


def peak_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def test_a_web_that_refuses_a_body_early_is_heard(proxy: Proxy) -> None:
    """It closes while the visitor still sends."""
    proxy.needs("early refusals")
    proxy.web.answer = lambda call: call.send(
        b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge"
    )
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get(b"/", b"Content-Length: 9000000", method=b"POST"))
        with contextlib.suppress(ConnectionError):
            for _ in range(9):
                visitor.send(bytes(100_000))
        assert visitor.answer()[::3] == (413, b"large")


def test_half_a_body_is_not_taken_for_a_whole_one(proxy: Proxy) -> None:
    ended: list[object] = []

    def answer(call: Call) -> None:
        try:
            ended.append(call.body())
        except (EOFError, ConnectionError) as error:
            ended.append(error)

    proxy.web.answer = answer
    for rest in (b"5\r\nhello\r\n", b"5\r\nhello\r\nnonsense\r\n"):
        with RawVisitor(proxy.port) as visitor:
            visitor.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + rest)
            if b"nonsense" not in rest:
                patience.until(lambda: proxy.web.calls)
    patience.until(lambda: len(ended) == len(proxy.web.calls))
    assert ended
    assert not any(isinstance(each, bytes) for each in ended)


# --- the answer ---------------------------------------------------------------------------------------


def test_the_answer_passes_byte_for_byte(proxy: Proxy) -> None:
    lines = b"Set-Cookie: a=1\r\nSet-Cookie: b=\xe4\r\nX-Empty:\r\nServer: Web/1\r\nContent-Length: 3\r\n"
    proxy.web.answer = lambda call: call.send(b"HTTP/1.1 299 Quite Fine\r\n" + lines + b"\r\nabc")
    answer = ask(proxy.port, get())
    assert (answer.status, answer.body, answer.values("set-cookie")) == (299, b"abc", ["a=1", "b=ä"])
    assert answer.values("x-empty") == [""]
    if proxy.name == "front":
        assert (answer.reason, answer.values("server")) == ("Quite Fine", ["Web/1"])


def test_the_front_does_not_say_of_what_it_is_made(proxy: Proxy) -> None:
    proxy.needs("anonymity")
    assert ask(proxy.port, get()).values("server") == []
    assert ask(proxy.port, b"nonsense\r\n\r\n").values("server") == []


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_answers_without_a_body_leave_the_connection_open(proxy: Proxy, method: bytes) -> None:
    status = b"200 OK" if method == b"HEAD" else b"304 Not Modified"
    proxy.web.answer = lambda call: call.send(b"HTTP/1.1 %s\r\nContent-Length: 7\r\nETag: x\r\n\r\n" % status)
    with RawVisitor(proxy.port) as visitor:
        for _ in range(2):
            visitor.send(get(method=method))
            assert visitor.answer(method.decode()).body == b""
    assert len(proxy.web.calls) == 2


def test_an_answer_that_ends_with_the_connection_passes(proxy: Proxy) -> None:
    proxy.web.answer = lambda call: call.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    assert ask(proxy.port, get()).body == b"all of it"
    assert ask(proxy.port, get(version=b"1.0")).body == b"all of it"


def test_interim_answers_pass(proxy: Proxy) -> None:
    proxy.needs("interim answers")
    proxy.web.answer = lambda call: call.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK)
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get())
        status, lines = visitor.head()
        assert (status, b"Link: </a.css>" in lines) == (103, True)
        assert visitor.answer().status == 200


def test_a_web_that_does_not_answer_gives_502(proxy: Proxy) -> None:
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Len"]
    if proxy.name != "nginx":  # which takes it for an answer of HTTP/0.9
        answers.append(b"HTTP/1.1 nonsense\r\n\r\n")
    for answer in answers:
        proxy.web.answer = lambda call, answer=answer: call.send(answer)  # type: ignore[misc]
        assert ask(proxy.port, get()).status == 502


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_half_an_answer_is_not_taken_for_a_whole_one(proxy: Proxy, framing: bytes) -> None:
    if b"chunked" in framing:
        proxy.needs("cut chunks")
    half = b"32\r\n" + bytes(50) if b"chunked" in framing else bytes(50)
    proxy.web.answer = lambda call: call.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + half)
    with pytest.raises((http.client.IncompleteRead, ConnectionError, EOFError)):
        ask(proxy.port, get())


def test_events_come_at_once_and_the_web_learns_that_a_visitor_left(proxy: Proxy) -> None:
    going = threading.Event()

    def answer(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        going.wait(patience.limit(30))
        call.send(b"data: 2\n\n")
        call.wait_until_left()

    proxy.web.answer = answer
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get(b"/", b"Accept: text/event-stream"))
        assert visitor.head()[0] == 200
        while visitor.line().strip() != b"data: 1":
            pass
        going.set()
        while visitor.line().strip() != b"data: 2":
            pass
    patience.until(lambda: proxy.web.call().left)


def test_the_web_learns_that_a_visitor_left_before_the_answer(proxy: Proxy) -> None:
    proxy.web.answer = Call.wait_until_left
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get())
        patience.until(lambda: proxy.web.calls)
    patience.until(lambda: proxy.web.call().left)


# --- 100-continue -------------------------------------------------------------------------------------

_EXPECTING = get(b"/", b"Expect: 100-continue", b"Content-Length: 5", method=b"POST")


@pytest.mark.parametrize("web_knows", [True, False])
def test_a_visitor_who_waits_to_send_a_body_is_asked_for_it(proxy: Proxy, web_knows: bool) -> None:
    def answer(call: Call) -> None:
        if web_knows and call.values("expect"):
            call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert call.take(5) == b"hello"
        call.send(OK)

    proxy.web.answer = answer
    with RawVisitor(proxy.port) as visitor:
        visitor.send(_EXPECTING)
        assert visitor.head()[0] == 100
        visitor.send(b"hello")
        assert visitor.answer().body == b"ok"


def test_a_body_that_the_web_refuses_need_not_be_sent(proxy: Proxy) -> None:
    proxy.needs("refusal before the body")
    proxy.web.answer = lambda call: call.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
    with RawVisitor(proxy.port) as visitor:
        visitor.send(_EXPECTING)
        assert visitor.answer()[::3] == (401, b"no")


# --- WebSocket ----------------------------------------------------------------------------------------

_HANDSHAKE = get(
    b"/ws?a=%2F",
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Protocol: chat, other",
)
_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


def test_a_websocket_passes_with_pings_and_the_webs_close_code(proxy: Proxy) -> None:
    def answer(call: Call) -> None:
        assert call.line == b"GET /ws?a=%2F HTTP/1.1"
        assert call.values("sec-websocket-key") == [b"dGhlIHNhbXBsZSBub25jZQ=="]
        call.send(_ACCEPTED + frame(_TEXT, b"first", False))
        assert call.take(10) == frame(_TEXT, b"echo", True)
        call.send(frame(_PING, b"?", False))
        assert call.take(7) == frame(_PONG, b"?", True)
        call.send(frame(_CLOSE, b"\x0f\xa1bye", False))

    proxy.web.answer = answer
    with RawVisitor(proxy.port) as visitor:
        visitor.send(_HANDSHAKE)
        status, lines = visitor.head()
        assert status == 101
        assert b"sec-websocket-protocol: chat" in [line.lower() for line in lines]
        assert visitor.take(7) == frame(_TEXT, b"first", False)
        visitor.send(frame(_TEXT, b"echo", True))
        assert visitor.take(3) == frame(_PING, b"?", False)
        visitor.send(frame(_PONG, b"?", True))
        assert visitor.take(7) == frame(_CLOSE, b"\x0f\xa1bye", False)
        assert visitor.rest() == b""


def test_a_visitors_close_code_reaches_the_web(proxy: Proxy) -> None:
    closed: list[bytes] = []

    def answer(call: Call) -> None:
        call.send(_ACCEPTED)
        closed.append(call.take(8))
        call.wait_until_left()

    proxy.web.answer = answer
    with RawVisitor(proxy.port) as visitor:
        visitor.send(_HANDSHAKE)
        assert visitor.head()[0] == 101
        visitor.send(frame(_CLOSE, b"\x10\xe1", True))
        patience.until(lambda: closed)
    assert closed == [frame(_CLOSE, b"\x10\xe1", True)]
    patience.until(lambda: proxy.web.call().left)


def test_a_refused_handshake_passes_and_the_connection_goes_on(proxy: Proxy) -> None:
    proxy.web.answer = lambda call: call.send(
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\n\r\nlogin" if b"/ws" in call.line else OK
    )
    with RawVisitor(proxy.port) as visitor:
        visitor.send(_HANDSHAKE)
        answer = visitor.answer()
        assert (answer.status, answer.body, answer.values("www-authenticate")) == (401, b"login", ["Basic"])
        if proxy.name != "nginx":  # which closes it
            visitor.send(get())
            assert visitor.answer().body == b"ok"


def test_another_upgrade_is_an_ordinary_request(proxy: Proxy) -> None:
    """Such as curl's question for HTTP/2, also with a body."""
    proxy.needs("websockets only")
    bodies: list[bytes] = []

    def answer(call: Call) -> None:
        bodies.append(call.body())
        call.send(OK)

    proxy.web.answer = answer
    lines = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"]
    with RawVisitor(proxy.port) as visitor:
        for _ in range(2):
            visitor.send(get(b"/", *lines, b"Content-Length: 4", method=b"POST") + b"body" + get(b"/next", *lines))
            assert [visitor.answer().body, visitor.answer().body] == [b"ok", b"ok"]
    assert bodies == [b"body", b"", b"body", b""]
    assert [call.values("upgrade") for call in proxy.web.calls] == [[]] * 4


# --- connections --------------------------------------------------------------------------------------


def test_requests_on_one_connection_are_answered_in_their_order(proxy: Proxy) -> None:
    proxy.web.answer = lambda call: call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + call.line[5:7])
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get(b"/aa") + get(b"/bb"))
        visitor.send(get(b"/cc"))
        assert [visitor.answer().body for _ in range(3)] == [b"aa", b"bb", b"cc"]


def test_http_1_0_is_spoken(proxy: Proxy) -> None:
    with RawVisitor(proxy.port) as visitor:
        visitor.send(b"GET /old HTTP/1.0\r\n\r\n")
        answered = visitor.rest()
    assert answered.startswith(b"HTTP/1.") and answered.endswith(b"\r\n\r\nok")
    with RawVisitor(proxy.port) as visitor:
        for _ in range(2):
            visitor.send(get(b"/", b"Connection: keep-alive", version=b"1.0"))
            assert visitor.answer().body == b"ok"


def test_a_head_that_comes_byte_by_byte_is_read(proxy: Proxy) -> None:
    with RawVisitor(proxy.port) as visitor:
        for byte in get(b"/slow", b"X-Slow: 1"):
            visitor.send(bytes([byte]))
        assert visitor.answer().body == b"ok"
    assert proxy.web.call().values("x-slow") == [b"1"]


def test_a_visitor_who_reads_late_receives_everything(proxy: Proxy) -> None:
    block = os.urandom(1 << 16)
    size = 200 * len(block)

    def answer(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(200):
            call.send(block)

    proxy.web.answer = answer
    with RawVisitor(proxy.port) as visitor:
        visitor.send(get())
        patience.until(lambda: proxy.web.calls)
        assert visitor.answer().body == block * 200


# --- attacks ------------------------------------------------------------------------------------------

_SECOND = b"GET /smuggled HTTP/1.1\r\nHost: site.example\r\n\r\n"
_AMBIGUOUS = {
    "length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 47\r\n\r\n",
    "signed length": b"Content-Length: +3\r\n\r\nabc",
    "list of lengths": b"Content-Length: 0, 47\r\n\r\n",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding in a list": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "vertical tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "folded line": b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    "NUL": b"X: a\0b\r\n\r\n",
    "carriage return": b"X: a\rContent-Length: 3\r\n\r\n",
    "two hosts": b"Host: other.example\r\n\r\n",
    "size of a chunk in C": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "line feed in an extension": b"Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
    "too long a chunk": b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n",
}
_LINES = {
    "another host": b"GET http://other.example/ HTTP/1.1",
    "user information": b"GET @other.example/ HTTP/1.1",
    "connect": b"CONNECT other.example:80 HTTP/1.1",
    "trace": b"TRACE / HTTP/1.1",
    "no version": b"GET /",
    "a later version": b"GET / HTTP/2.0",
    "blank in the path": b"GET /a b HTTP/1.1",
}


@pytest.mark.parametrize("name", list(_AMBIGUOUS))
def test_what_two_servers_could_read_in_two_ways_is_one_request_at_most(proxy: Proxy, name: str) -> None:
    proxy.web.answer = answer_any
    with RawVisitor(proxy.port) as visitor:
        visitor.send(b"POST / HTTP/1.1\r\nHost: site.example\r\n" + _AMBIGUOUS[name] + _SECOND)
        if proxy.name == "front":
            assert visitor.answer().status in (400, 501)
            visitor.rest()
        else:
            with contextlib.suppress(OSError):  # it was closed already
                visitor.send(b"\r\n\r\n\r\n\r\n")
                visitor.socket.shutdown(socket.SHUT_WR)
            visitor.rest()
    first = [call for call in proxy.web.calls if b"/smuggled" not in call.line]
    assert len(first) <= 1
    if proxy.name == "front":
        assert len(proxy.web.calls) <= 1
    for call in first:  # what went on is clear
        codings, lengths = call.values("transfer-encoding"), call.values("content-length")
        assert (codings, len(lengths)) in (([], 0), ([], 1), ([b"chunked"], 0))
        assert len(call.values("host")) == 1


def answer_any(call: Call) -> None:
    with contextlib.suppress(EOFError, ConnectionError, ValueError):
        call.body()
        call.send(OK)


@pytest.mark.parametrize("name", list(_LINES))
def test_a_request_line_for_something_else_is_refused_or_made_harmless(proxy: Proxy, name: str) -> None:
    proxy.needs(name)
    with RawVisitor(proxy.port) as visitor:
        visitor.send(_LINES[name] + b"\r\nHost: site.example\r\n\r\n")
        answered = visitor.rest() if proxy.name == "front" else visitor.take(12)
    if proxy.name == "front":
        assert answered[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5")
        assert proxy.web.calls == []
    for call in proxy.web.calls:
        assert call.line.split()[1].startswith(b"/")


def test_line_feeds_alone_are_refused_or_made_whole(proxy: Proxy) -> None:
    for request in (b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"):
        with RawVisitor(proxy.port) as visitor:
            visitor.send(request)
            with contextlib.suppress(OSError):  # it was closed already
                visitor.socket.shutdown(socket.SHUT_WR)
            visitor.rest()
    assert all(b"\n" not in call.head.replace(b"\r\n", b"") for call in proxy.web.calls)


def test_a_head_without_an_end_is_refused(proxy: Proxy) -> None:
    with RawVisitor(proxy.port) as visitor:
        visitor.send(b"GET / HTTP/1.1\r\nHost: site.example\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(2000):
                visitor.send(b"X-%d: %s\r\n" % (number, bytes(1000).replace(b"\0", b"x")))
        visitor.rest()
    assert proxy.web.calls == []


_IMPATIENT = """
import asyncio, sys
from pathlib import Path
from holdfast.drivers.gates.front import relay, server

relay._STALLED_SECONDS = 0.3
asyncio.run(server.serve(Path(sys.argv[1])))
"""


def test_a_visitor_who_stops_in_the_middle_does_not_keep_the_web(folder: Path) -> None:
    web = RawWeb()
    proxy = start_front(folder, web, program=[sys.executable, "-c", _IMPATIENT])
    try:
        web.answer = Call.wait_until_left
        with RawVisitor(proxy.port) as visitor:
            visitor.send(get(b"/", b"Content-Length: 9", method=b"POST") + b"half")
            assert visitor.answer().status == 408
        patience.until(lambda: web.call().left)
        web.reset()
        web.answer = lambda call: call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99000000\r\n\r\n" + bytes(99_000_000))
        with RawVisitor(proxy.port) as visitor:
            visitor.send(get())
            patience.until(lambda: web.failures)  # sending the rest fails while the visitor reads nothing
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                visitor.answer()
    finally:
        proxy.end()
        web.close()


def test_a_front_that_is_stopped_lets_requests_end(folder: Path) -> None:
    web = RawWeb()
    proxy = start_front(folder, web)
    going = threading.Event()

    def answer(call: Call) -> None:
        going.wait(patience.limit(30))
        call.send(OK)

    web.answer = answer
    try:
        with RawVisitor(proxy.port) as visitor, RawVisitor(proxy.port) as idle:
            visitor.send(get())
            web.call()
            proxy.stop()
            assert idle.rest() == b""
            going.set()
            assert visitor.answer().body == b"ok"
            assert visitor.rest() == b""
    finally:
        going.set()
        proxy.end()
        web.close()


def test_a_websocket_that_outlasts_the_drain_is_ended(folder: Path) -> None:
    web = RawWeb()
    proxy = start_front(folder, web)
    gate = FrontGate(folder, f"127.0.0.1:{proxy.port}", drain_seconds=0.1)

    def answer(call: Call) -> None:
        call.send(_ACCEPTED)
        call.wait_until_left()

    web.answer = answer
    try:
        with RawVisitor(proxy.port) as visitor:
            visitor.send(_HANDSHAKE)
            assert visitor.head()[0] == 101
            gate.close({"operation": "op1"})
            assert visitor.rest() == b""
        patience.until(lambda: web.call().left)
        assert (gate.ask({"do": "status"}) or {})["under_way"] == 0
    finally:
        proxy.end()
        web.close()


# --- what the front says of a visitor -----------------------------------------------------------------

_SAID = [
    b"X-Forwarded-For: 10.0.0.1",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: site.example",
    b"X-Forwarded-For: 10.0.0.2",
    b"X-Real-IP: 10.0.0.1",
    b"Forwarded: for=10.0.0.1",
    b"X_Forwarded_For: 10.6.6.6",
]
_NAMES = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded", "x_forwarded_for"]


@pytest.mark.parametrize(
    ("trusted", "lines", "wanted"),
    [
        (None, [], ["127.0.0.1", "http"]),
        (None, _SAID, ["10.0.0.1, 10.0.0.2, 127.0.0.1", "https", "site.example", "10.0.0.1", "for=10.0.0.1"]),
        (["10.0.0.0/8"], _SAID, ["127.0.0.1", "http"]),
    ],
)
def test_the_web_learns_of_the_visitor_from_proxies_that_are_trusted(
    folder: Path, trusted: list[str] | None, lines: list[bytes], wanted: list[str]
) -> None:
    web = RawWeb()
    proxy = start_front(folder, web, trusted)
    try:
        ask(proxy.port, get(b"/", *lines))
        found = [value.decode() for name in _NAMES for value in web.call().values(name)]
        assert found == wanted
    finally:
        proxy.end()
        web.close()
