"""What every Gate driver promises; and the front as visitors meet it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.gates.front.driver import FrontGate
from holdfast.drivers.gates.none import NoGate
from holdfast.drivers.gates.proxy.driver import ProxyGate
from holdfast.drivers.gates.proxy.location import ProxyLocation
from holdfast.drivers.gates.proxy.nginx import Nginx
from holdfast.drivers.protocols.gates import Gate
from holdfast.errors import StepError
from holdfast.system.host import Host
from holdfast.system.ports import free_loopback_port
from tests import harnesses
from tests.proof import patience
from tests.servers.caddy import CaddyServer
from tests.servers.nginx import NginxServer
from tests.servers.proxy import ProxyServer

GATES = harnesses.gates()


@pytest.fixture(params=list(GATES))
def gate(request: pytest.FixtureRequest, folder: Path) -> Gate:
    return GATES[request.param](folder / "gate")


def test_a_new_gate_is_open_and_routes_nowhere(gate: Gate) -> None:
    state = gate.state()
    assert (state.open, state.release, state.target) == (True, None, None)


def test_the_operations_hold_and_the_operators_are_independent(gate: Gate) -> None:
    by_operator, by_operation = {"comment": "moving house"}, {"operation": "op1", "comment": "upgrade"}
    gate.hold(by_operator)
    gate.close(by_operation)
    assert (gate.state().hold, gate.state().operation, gate.state().open) == (by_operator, by_operation, False)
    gate.open()
    assert (gate.state().hold, gate.state().operation, gate.state().open) == (by_operator, None, False)
    gate.close(by_operation)
    gate.hold(None)
    assert (gate.state().hold, gate.state().operation, gate.state().open) == (None, by_operation, False)
    gate.open()
    assert gate.state().open


def test_everything_may_be_repeated(gate: Gate) -> None:
    actions: list[Callable[[], Any]] = [
        lambda: gate.close({"operation": "op1"}),
        lambda: gate.hold({"comment": "x"}),
        lambda: gate.route("r1", "127.0.0.1:1"),
        gate.open,
        lambda: gate.hold(None),
    ]
    for action in actions:
        action()
        once = gate.state()
        action()
        assert gate.state() == once


def test_a_route_stays_through_holds(gate: Gate) -> None:
    gate.route("r1", "127.0.0.1:1")
    gate.close({"operation": "op1"})
    gate.route("r2", "127.0.0.1:2")
    gate.open()
    assert (gate.state().release, gate.state().target) == ("r2", "127.0.0.1:2")


def test_opening_ends_a_preview(gate: Gate) -> None:
    gate.close({"operation": "op1"}, "127.0.0.1:2")
    once = gate.state()
    gate.close({"operation": "op1"}, "127.0.0.1:2")
    assert gate.state() == once, "the holder of the cookie keeps his way in when it is repeated"
    assert not gate.state().open
    gate.open()
    assert (gate.state().preview_target, gate.state().preview_token) == (None, None)


def test_another_preview_target_has_another_secret(folder: Path) -> None:
    for name in ("front", "nginx", "fake"):
        gate = GATES[name](folder / name)
        gate.close({"operation": "op1"}, "127.0.0.1:2")
        token = gate.state().preview_token
        gate.close({"operation": "op1"})
        assert gate.state().preview_token == token
        gate.close({"operation": "op1"}, "127.0.0.1:3")
        assert gate.state().preview_target == "127.0.0.1:3"
        assert gate.state().preview_token not in (None, token)


def test_a_gate_without_its_server_does_not_answer(folder: Path) -> None:
    assert NoGate(folder / "none").answers()
    assert not GATES["front"](folder / "front").answers()


def test_the_state_outlives_the_process_that_wrote_it(folder: Path) -> None:
    for name in ("front", "nginx", "none"):
        GATES[name](folder / name).close({"operation": "op1"})
        GATES[name](folder / name).hold({"comment": "x"})
        again = GATES[name](folder / name).state()
        assert (again.operation, again.hold) == ({"operation": "op1"}, {"comment": "x"})


def test_only_the_front_is_a_service_of_ours(folder: Path) -> None:
    assert NoGate(folder).instance() is None
    instance = FrontGate(folder, "127.0.0.1:9").instance()
    assert instance is not None
    assert instance.kind == "gate"


# --- the front with visitors --------------------------------------------------------------------------


class Web:
    """An application that answers with its name, and on /slow only once it is told to."""

    def __init__(self, name: str) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/slow":
                    web.entered.set()
                    web.go_on.wait(patience.limit(30))
                body = name.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass  # the visitor was cut off, as one test wants

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Visitor:
    """Asks what is before two webs."""

    port: int
    gate: Gate
    old: Web
    new: Web

    def get(self, path: str = "/", **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience.limit(30))
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), {key.lower(): value for key, value in answer.getheaders()}
        finally:
            connection.close()


class VisitedProxy(Visitor):
    """An operator's proxy before two webs, led to the first."""

    gate: ProxyGate

    def __init__(self, kind: type[ProxyServer], folder: Path, drain_seconds: float) -> None:
        self.old, self.new = Web("old"), Web("new")
        self.server = kind(folder, self.old.address, drain_seconds=0.1)
        self.server.gate.route("r1", self.old.address)  # behind Caddy a first file's visitors are given all the time
        self.port, self.gate = self.server.port, self.server.gate_of(drain_seconds)

    def end(self) -> None:
        self.old.close()
        self.new.close()
        self.server.end()


class Visited(Visitor):
    """A running front before two webs."""

    gate: FrontGate

    def __init__(self, folder: Path, drain_seconds: float, command: Sequence[str] = ()) -> None:
        self.port = free_loopback_port()
        self.gate = FrontGate(folder, f"127.0.0.1:{self.port}", message="Back soon.", drain_seconds=drain_seconds)
        self.old, self.new = Web("old"), Web("new")
        self.gate.route("r1", self.old.address)
        instance = self.gate.instance()
        assert instance is not None
        self._log = open(folder / "front.out", "wb")
        arguments = [*command, str(folder)] if command else instance.command
        self._process = subprocess.Popen(arguments, env=dict(os.environ), stdout=self._log, stderr=self._log)
        deadline = patience.deadline(30)
        while not self.gate.answers():
            assert self._process.poll() is None, (folder / "front.out").read_text()
            assert time.monotonic() < deadline, "the front did not come up"
            time.sleep(0.02)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(patience.limit(30))
        self._log.close()
        self.old.close()
        self.new.close()


PROXIES: dict[str, type[ProxyServer]] = {"nginx": NginxServer, "caddy": CaddyServer}
VISITED: dict[str, Callable[..., Any]] = {
    "front": Visited,
    **{name: partial(VisitedProxy, kind) for name, kind in PROXIES.items()},
}


@pytest.fixture(params=list(VISITED))
def visited(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    (folder / "gate").mkdir()
    found = VISITED[request.param](folder / "gate", drain_seconds=20)
    yield found
    found.end()


@pytest.fixture
def front(folder: Path) -> Iterator[Visited]:
    found = Visited(folder / "gate", drain_seconds=20)
    yield found
    found.end()


@pytest.fixture(params=list(PROXIES))
def kind(request: pytest.FixtureRequest) -> type[ProxyServer]:
    return PROXIES[request.param]


@pytest.fixture
def proxied(kind: type[ProxyServer], folder: Path) -> Iterator[VisitedProxy]:
    found = VisitedProxy(kind, folder, drain_seconds=20)
    yield found
    found.end()


def test_visitors_reach_the_routed_web_or_the_page(visited: Visited) -> None:
    assert visited.get()[:2] == (200, "old")
    visited.gate.route("r2", visited.new.address)
    assert visited.get()[:2] == (200, "new")
    visited.gate.close({"operation": "op1"})
    status, body, headers = visited.get(Accept="text/html")
    assert (status, "Back soon." in body, headers["cache-control"]) == (503, True, "no-store")
    assert int(headers["retry-after"]) > 0
    status, body, _ = visited.get(Accept="application/json")
    assert (status, isinstance(json.loads(body), dict)) == (503, True)
    visited.gate.open()
    assert visited.get()[:2] == (200, "new")
    assert visited.gate.check() == []


def test_a_page_with_an_end_names_it_and_no_longer_time_to_try_again(visited: Visited) -> None:
    until = int(time.time()) + 1800
    visited.gate.hold({"comment": "x", "until": until})
    status, body, headers = visited.get(Accept="text/html")
    assert (status, time.strftime("%H:%M UTC", time.gmtime(until)) in body) == (503, True)
    assert 10 <= int(headers["retry-after"]) <= 1800
    body = visited.get(Accept="application/json")[1]
    assert json.loads(body)["until"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))


def test_a_browser_that_asks_whether_the_site_is_back_gets_a_head_alone(visited: Visited) -> None:
    visited.gate.hold({"comment": "x"})
    connection = http.client.HTTPConnection("127.0.0.1", visited.port, timeout=patience.limit(30))
    try:
        for method in ("HEAD", "GET"):
            connection.request(method, "/some/page")
            answer = connection.getresponse()
            assert (answer.status, b"</html>" in answer.read()) == (503, method == "GET")
    finally:
        connection.close()


def test_both_holds_have_to_end_before_visitors_are_let_in(visited: Visited) -> None:
    visited.gate.hold({"comment": "x"})
    visited.gate.close({"operation": "op1"})
    visited.gate.open()
    assert visited.get()[0] == 503
    visited.gate.close({"operation": "op1"})
    visited.gate.hold(None)
    assert visited.get()[0] == 503
    visited.gate.open()
    assert visited.get()[0] == 200


def test_the_preview_cookie_alone_opens_the_way(visited: Visited) -> None:
    visited.gate.close({"operation": "op1"}, visited.new.address)
    token = visited.gate.state().preview_token
    assert visited.get(Cookie=f"holdfast_preview={token}")[:2] == (200, "new")
    assert visited.get(Cookie="holdfast_preview=")[0] == 503
    assert visited.get(Cookie=f"holdfast_preview={token}x")[0] == 503
    assert visited.get()[0] == 503
    visited.gate.open()
    visited.gate.close({"operation": "op2"})
    assert visited.get(Cookie=f"holdfast_preview={token}")[0] == 503
    visited.gate.open()
    assert visited.get(Cookie=f"holdfast_preview={token}")[:2] == (200, "old")


def test_close_returns_only_once_no_request_is_under_way(visited: Visited) -> None:
    answers: list[tuple[int, str]] = []
    visitor = threading.Thread(target=lambda: answers.append(visited.get("/slow")[:2]))
    visitor.start()
    assert visited.old.entered.wait(patience.limit(30))
    closer = threading.Thread(target=lambda: visited.gate.close({"operation": "op1"}))
    closer.start()
    deadline = patience.deadline(30)
    while visited.get()[0] != 503:  # new visitors are held while the old one is still served
        assert time.monotonic() < deadline
    assert closer.is_alive()
    assert answers == []
    visited.old.go_on.set()
    closer.join(patience.limit(30))
    visitor.join(patience.limit(30))
    assert not closer.is_alive()
    assert answers == [(200, "old")]


def test_route_drains_the_web_before(visited: Visited) -> None:
    answers: list[tuple[int, str]] = []
    visitor = threading.Thread(target=lambda: answers.append(visited.get("/slow")[:2]))
    visitor.start()
    assert visited.old.entered.wait(patience.limit(30))
    router = threading.Thread(target=lambda: visited.gate.route("r2", visited.new.address))
    router.start()
    deadline = patience.deadline(30)
    while visited.get()[1] != "new":
        assert time.monotonic() < deadline
    assert router.is_alive()
    visited.old.go_on.set()
    router.join(patience.limit(30))
    visitor.join(patience.limit(30))
    assert answers == [(200, "old")]


@pytest.mark.parametrize("name", list(VISITED))
def test_a_request_that_outlasts_the_drain_is_cut(name: str, folder: Path) -> None:
    (folder / "gate").mkdir()
    visited = VISITED[name](folder / "gate", drain_seconds=0.1)
    try:
        ended: list[object] = []

        def visit() -> None:
            try:
                ended.append(visited.get("/slow"))
            except (OSError, http.client.HTTPException) as error:
                ended.append(error)

        visitor = threading.Thread(target=visit)
        visitor.start()
        assert visited.old.entered.wait(patience.limit(30))
        visited.gate.close({"operation": "op1"})
        visitor.join(patience.limit(30))
        assert len(ended) == 1
        if name == "front":  # the proxies of others cut the connection
            assert isinstance(ended[0], tuple) and ended[0][0] == 503, "its visitor reads why"
        assert not (isinstance(ended[0], tuple) and ended[0][0] == 200)
        answer = visited.gate.ask({"do": "status"}) if name == "front" else {"under_way": 0}
        assert answer["under_way"] == 0
    finally:
        visited.end()


def test_a_state_file_that_cannot_be_read_shows_the_page(front: Visited, folder: Path) -> None:
    (folder / "gate" / "gate.json").write_text("{")
    front.gate.ask({"do": "reload", "drain_seconds": 0})
    assert front.get()[0] == 503


# With few descriptors, of which it can have no more, and little patience.
_SHORT_OF_DESCRIPTORS = """
import asyncio, resource, sys
from pathlib import Path
from holdfast.drivers.gates.front import server

resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
server._IDLE_SECONDS = 1.0
asyncio.run(server.serve(Path(sys.argv[1])))
"""


def test_visitors_that_take_every_connection_stop_no_operation(folder: Path) -> None:
    """Of those that say half a request the front is rid after a while; of those over its bound at once."""
    visited = Visited(folder, 0.1, [sys.executable, "-c", _SHORT_OF_DESCRIPTORS])
    idle: list[socket.socket] = []
    try:
        for _ in range(300):
            visitor = socket.create_connection(("127.0.0.1", visited.port), timeout=patience.limit(30))
            idle.append(visitor)
            with contextlib.suppress(OSError):  # turned away already
                visitor.sendall(b"GET / HTTP/1.1\r\nHost: half")
        visited.gate.hold({"comment": "disks"})
        visited.gate.hold(None)
        deadline = patience.deadline(30)
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if visited.get()[:2] == (200, "old"):
                    break
            assert time.monotonic() < deadline, "idle visitors keep others out"
            time.sleep(0.05)
        assert (visited.gate.ask({"do": "status"}) or {})["counts"]["turned away"] > 0
    finally:
        for visitor in idle:
            visitor.close()
        visited.end()


def test_check_names_an_address_that_is_taken(folder: Path) -> None:
    web = Web("other")
    try:
        (problem,) = FrontGate(folder, web.address).check()
        assert problem.severity == "error"
        assert web.address in problem.message
    finally:
        web.close()


# --- a proxy of the operator's own ----------------------------------------------------------------------


def test_a_proxy_that_starts_again_follows_the_file_as_it_stands(proxied: VisitedProxy) -> None:
    proxied.gate.close({"operation": "op1"})
    proxied.server.end()
    proxied.server.start()
    assert proxied.get()[0] == 503
    assert proxied.get("/media/")[:2] == (200, "media"), "what the operator keeps open stays open"
    proxied.server.end()
    proxied.gate.open()
    proxied.server.start()
    assert proxied.get()[:2] == (200, "old")


def test_until_something_is_routed_the_operators_own_first_file_stands(kind: type[ProxyServer], folder: Path) -> None:
    web = Web("own")
    server = kind(folder, web.address, drain_seconds=1)
    try:
        server.gate.close({"operation": "op1"})
        server.gate.open()
        assert server.gate.answers()
        assert server.include.read_text().startswith(kind.seed.partition("ADDRESS")[0])
        assert http_status(server.port) == 200
    finally:
        server.end()
        web.close()


def test_a_configuration_that_nginx_refuses_is_taken_back(folder: Path) -> None:
    proxied = VisitedProxy(NginxServer, folder, drain_seconds=20)
    try:
        good = proxied.server.config.read_text()
        before = proxied.server.include.read_text()
        proxied.server.config.write_text(good.replace(proxied.server.good, proxied.server.bad))
        with pytest.raises(StepError, match="rejects its configuration"):
            proxied.gate.close({"operation": "op1"})
        assert proxied.server.include.read_text() == before
        assert proxied.get()[:2] == (200, "old")
        proxied.gate.open()  # the undo, with the configuration still bad
        assert proxied.gate.state().open
        proxied.server.config.write_text(good)
        proxied.gate.close({"operation": "op1"})
        assert proxied.get()[0] == 503
    finally:
        proxied.end()


def test_a_first_file_that_the_proxy_refuses_is_taken_back(kind: type[ProxyServer], folder: Path) -> None:
    web = Web("own")
    server = kind(folder, web.address, drain_seconds=1)
    try:
        good, before = server.config.read_text(), server.include.read_text()
        server.config.write_text(good.replace(server.good, server.bad))
        with pytest.raises(StepError, match="rejects its configuration"):
            server.gate.route("r1", web.address)
        assert (server.include.read_text(), server.gate.state().target) == (before, None)
        server.config.write_text(good)
        server.gate.close({"operation": "op1"})
        assert http_status(server.port) == 503
    finally:
        server.end()
        web.close()


def test_caddy_follows_whatever_became_of_its_configuration(folder: Path) -> None:
    proxied = VisitedProxy(CaddyServer, folder, drain_seconds=20)
    try:
        proxied.server.config.write_text("no_such_word {")
        proxied.gate.close({"operation": "op1"})
        assert proxied.get()[0] == 503
        proxied.gate.open()
        assert proxied.get()[:2] == (200, "old")
    finally:
        proxied.end()


def test_no_new_connection_is_lost_while_visitors_are_led_back_and_forth(visited: Visited) -> None:
    met: Counter[object] = Counter()
    ended = threading.Event()

    def visit() -> None:
        while not ended.is_set():
            try:
                met[visited.get()[:2]] += 1
            except (OSError, http.client.HTTPException) as error:
                met[repr(error)] += 1

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    try:
        for _ in range(4):
            visited.gate.route("r2", visited.new.address)
            visited.gate.route("r1", visited.old.address)
    finally:
        ended.set()
        for visitor in visitors:
            visitor.join(patience.limit(30))
    assert set(met) == {(200, "old"), (200, "new")}, met


def test_a_page_is_whole_whatever_a_request_asks_for(proxied: VisitedProxy) -> None:
    proxied.gate.close({"operation": "op1"})
    status, body, headers = proxied.get("/any/path.css?x=1", Range="bytes=0-3", Accept="text/html")
    assert (status, "</html>" in body, "content-range" in headers) == (503, True, False)
    connection = http.client.HTTPConnection("127.0.0.1", proxied.port, timeout=patience.limit(30))
    try:
        connection.request("POST", "/order", body="a=b", headers={"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"})
        answer = connection.getresponse()
        assert (answer.status, "Back soon." in answer.read().decode()) == (503, True)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("location / { proxy_pass http://OLD; }", "not held"),
        ("location / { proxy_pass http://$holdfast_web; }", "not held"),
        ("location /other/ { proxy_pass http://$holdfast_web; }", "not held"),
    ],
)
def test_visitors_that_the_file_does_not_lead_are_noticed(folder: Path, location: str, said: str) -> None:
    web = Web("old")
    server = NginxServer(folder, web.address, location=location.replace("OLD", web.address))
    try:
        with pytest.raises(StepError, match=said):
            server.gate.close({"operation": "op1"})
    finally:
        server.end()
        web.close()


def test_without_the_line_that_shows_the_page_nobody_reaches_the_web_either(folder: Path) -> None:
    web = Web("old")
    server = NginxServer(folder, web.address, location="location / { proxy_pass http://$holdfast_web; }")
    try:
        with pytest.raises(StepError):
            server.gate.close({"operation": "op1"})
        assert http_status(server.port) == 502
    finally:
        server.end()
        web.close()


def test_a_web_is_tried_out_through_the_proxy_before_visitors_reach_it(proxied: VisitedProxy) -> None:
    proxied.gate.probe_upstream(proxied.new.address)
    assert proxied.get()[:2] == (200, "old")
    token = proxied.gate.state().preview_token
    assert proxied.get(Cookie=f"holdfast_preview={token}")[:2] == (200, "new")


def test_opening_and_trying_out_cut_nobody(proxied: VisitedProxy) -> None:
    answers: list[tuple[int, str]] = []
    visitor = threading.Thread(target=lambda: answers.append(proxied.get("/slow")[:2]))
    visitor.start()
    assert proxied.old.entered.wait(patience.limit(30))
    proxied.gate.probe_upstream(proxied.new.address)
    proxied.gate.open()
    assert answers == []
    proxied.old.go_on.set()
    visitor.join(patience.limit(30))
    assert answers == [(200, "old")]


def test_a_long_page_with_signs_that_a_proxy_takes_for_its_own(proxied: VisitedProxy, folder: Path) -> None:
    text = 'Zurück um 5 $uhr {host} "bald" \\ ` \' ; }' + "ü" * 9000
    proxied.gate.hold({"message": text})
    status, body, _ = proxied.get(Accept="application/json")
    assert (status, json.loads(body)["message"]) == (503, text)


def test_a_request_from_before_a_change_that_was_killed_is_waited_for(proxied: VisitedProxy) -> None:
    """Killed after the proxy followed, before anybody had waited: what is repeated does."""
    answers: list[tuple[int, str]] = []
    visitor = threading.Thread(target=lambda: answers.append(proxied.get("/slow")[:2]))
    visitor.start()
    assert proxied.old.entered.wait(patience.limit(30))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(proxied.gate, "_wait", lambda view: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            proxied.gate.route("r2", proxied.new.address)
    again = threading.Thread(target=lambda: proxied.gate.route("r2", proxied.new.address))
    again.start()
    again.join(1)
    assert again.is_alive() and answers == []
    proxied.old.go_on.set()
    again.join(patience.limit(30))
    visitor.join(patience.limit(30))
    assert answers == [(200, "old")]
    assert proxied.get()[:2] == (200, "new")


def test_a_worker_of_nginx_that_has_ended_tells_whose_it_was(folder: Path) -> None:
    """The last answer before a wait may come from a worker of the configuration before."""
    proxied = VisitedProxy(NginxServer, folder, drain_seconds=20)
    nginx = Nginx(ProxyLocation(Host()), str(proxied.server.config))
    answers: list[tuple[int, str]] = []
    visitor = threading.Thread(target=lambda: answers.append(proxied.get("/slow")[:2]))
    try:
        visitor.start()
        assert proxied.old.entered.wait(patience.limit(30))
        busy = proxied.server.workers()
        nginx.reload()
        patience.until(lambda: len(proxied.server.workers() - busy) == 2 and len(proxied.server.workers() & busy) == 1)
        second = proxied.server.workers() - busy
        drain = nginx.watch(None)
        nginx.reload()
        patience.until(lambda: not second & proxied.server.workers())
        waiting = threading.Thread(target=lambda: drain(f"mark {min(second)}", patience.limit(30)))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() and answers == []
        proxied.old.go_on.set()
        waiting.join(patience.limit(30))
        visitor.join(patience.limit(30))
        assert answers == [(200, "old")]
    finally:
        proxied.end()


def test_requests_that_go_round_the_file_are_noticed_by_caddy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.drivers.gates.proxy.driver._FOLLOW_SECONDS", 2.0)  # it never will
    web = Web("old")
    server = CaddyServer(folder, web.address, location=f"reverse_proxy {web.address}")
    try:
        with pytest.raises(StepError, match="does not follow"):
            server.gate.close({"operation": "op1"})
    finally:
        server.end()
        web.close()


def http_status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience.limit(30))
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()
