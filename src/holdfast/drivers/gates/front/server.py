"""`python -m holdfast.drivers.gates.front.server FOLDER`: the small proxy that owns the public address.

It reads FOLDER/gate.json at its start and on each order over FOLDER/front.sock. Without a readable file, or with one
that names no release, visitors get the maintenance page.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.drivers.gates import maintenance_page
from holdfast.drivers.gates.front.messages import BadMessageError, Request, RequestHead
from holdfast.drivers.gates.front.relay import Relay, VisitorLeftError, WebError
from holdfast.drivers.gates.front.visitor import VisitorWire
from holdfast.drivers.gates.pages import own_page

if TYPE_CHECKING:  # the proxy starts without the modules that write this file
    from holdfast.drivers.gates.state_file import GateFacts

PREVIEW_COOKIE = b"holdfast_preview"
_BYPASS = b"/.holdfast/bypass/"
LOOPBACK = ("127.0.0.0/8", "::1")
_IDLE_SECONDS = 60.0  # for a visitor who sends nothing, or an incomplete request head
_LINGER_SECONDS = 5.0  # for a visitor who still sends a request that was answered already
_CUT_SECONDS = 2.0
_REFRESH_SECONDS = range(5, 11)  # of browsers without scripts, so that not all come back at once
_SHUTDOWN_SECONDS = 10.0
_MOST_CONNECTIONS = 20_000
_OWN_DESCRIPTORS = 64
_MOST_PEERS = 1_000
_REASONS = {
    303: "See Other",
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Visit:
    """A request that is relayed to an address."""

    def __init__(self, task: asyncio.Task[None], target: str, by_token: bool = False) -> None:
        self.task = task
        self.target = target
        self.by_token = by_token
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.cut = False  # whether the drain ended it

    def end(self) -> None:
        self.cut = True
        self.task.cancel()


class Front:
    """The visitors' connections and the state that says where their requests go.

    Of the descriptors that this process may have, each visitor takes one, and one more while a request is relayed. A
    visitor over the limit is turned away at once, so that the operator's own connection always finds one. A visitor
    who sends nothing, or half a request, is disconnected after a while.
    """

    def __init__(self, folder: Path, most: int = _MOST_CONNECTIONS) -> None:
        self._folder = folder
        self._most = most
        self._open = 0  # connections, also those that are only being made
        self._visitors: dict[VisitorWire, asyncio.Task[None]] = {}
        self._busy: set[VisitorWire] = set()
        self._under_way: set[Visit] = set()
        self._counts: Counter[str] = Counter()
        self._trusted_networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._known_peers: dict[str, tuple[str, bool]] = {}
        self._stopping = False
        self.state: GateFacts = {}
        self.load()

    def load(self) -> None:
        try:
            state: GateFacts = json.loads((self._folder / "gate.json").read_text())
            trusted = state.get("trusted_proxies", LOOPBACK)
            self._trusted_networks = [ipaddress.ip_network(each, strict=False) for each in trusted]
            self.state = state
        except (OSError, ValueError):
            # Fail closed, because an unreadable state is not known to be committed.
            self.state = {**self.state, "operation": {"comment": ""}}
        self._known_peers.clear()

    # --- visitors ----------------------------------------------------------------------------------

    def connect(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        if self._open >= self._most:
            self._counts["turned away"] += 1
            return _TurnedAway()
        self._open += 1
        return VisitorWire(self._made, self._left)

    def _made(self, visitor: VisitorWire) -> None:
        self._visitors[visitor] = asyncio.get_running_loop().create_task(self._serve(visitor))

    def _left(self, visitor: VisitorWire) -> None:
        if visitor.lost:
            self._open -= 1
            task = self._visitors.pop(visitor)
        else:
            task = self._visitors[visitor]
        task.cancel()

    async def _serve(self, visitor: VisitorWire) -> None:
        try:
            while not self._stopping and await self._answer_next(visitor):
                visitor.go_on()
            if visitor.in_request:
                await visitor.linger(_LINGER_SECONDS)
        finally:
            visitor.close()

    async def _answer_next(self, visitor: VisitorWire) -> bool:
        """Answer the next request; return whether the connection may stay open."""
        try:
            head = await visitor.receive(_IDLE_SECONDS)
            assert isinstance(head, RequestHead)
            self._busy.add(visitor)
            return await self._answer(visitor, Request(head))
        except BadMessageError as error:
            self._counts["refused"] += 1
            self._reply(visitor, error.status, {"Content-Type": "text/plain"}, f"{error}\n".encode(), keep=None)
            await visitor.linger(_LINGER_SECONDS)
            return False
        except (TimeoutError, EOFError, ConnectionError):
            return False
        finally:
            self._busy.discard(visitor)

    async def _answer(self, visitor: VisitorWire, request: Request) -> bool:
        target = self._target()
        if request.target.startswith(_BYPASS):
            given = request.target[len(_BYPASS) :]
            if self._may_bypass(given) or target is not None:
                return self._let_bypass(visitor, request, given)
        by_token = target is None and self._may_bypass(request.cookie(PREVIEW_COOKIE))
        if by_token:
            target = self._preview()
        if target is None:
            self._counts["held"] += 1
            return self._page(visitor, request)
        self._counts["relayed"] += 1
        visit = Visit(self._visitors[visitor], target, by_token)
        self._under_way.add(visit)
        relay = Relay(visitor, request, request.keep_alive and not self._stopping)
        try:
            return await relay.run(target, request.head_for_web(target, *self._peer(visitor)))
        except WebError:
            self._counts["unreachable"] += 1
            if not relay.begun:
                return self._page(visitor, request, "The application does not answer at the moment.")
        except BadMessageError as error:
            if not relay.begun:
                if error.status != 502:
                    raise
                self._counts["unreachable"] += 1
                return self._page(visitor, request, "The answer of the application cannot be read.")
        except VisitorLeftError:
            self._counts["left"] += 1
        except asyncio.CancelledError:
            if not visit.cut:
                self._counts["left"] += 1
                if relay.begun:
                    visitor.abort()
                raise
            # A visitor whose request outlasts the drain gets the page, unless a part of the answer was already sent.
            visit.task.uncancel()
            if not relay.begun:
                self._counts["cut"] += 1
                return self._page(visitor, request)
        finally:
            self._under_way.discard(visit)
            visit.over.set_result(None)
        visitor.abort()  # so that nobody takes the part of the answer that has come for the whole
        return False

    def _target(self) -> str | None:
        """Return the address that every visitor reaches now; None for the maintenance page."""
        state = self.state
        if state.get("hold") is None and state.get("operation") is None and state.get("release"):
            return state.get("target") or None
        return None

    def _preview(self) -> str | None:
        """Return the address that the holder of the token reaches while visitors are held."""
        return self.state.get("preview_target") or self.state.get("target") or None

    def _may_bypass(self, given: bytes) -> bool:
        token = self.state.get("preview_token")
        return bool(token) and self._preview() is not None and hmac.compare_digest(given, str(token).encode())

    def _let_bypass(self, visitor: VisitorWire, request: Request, given: bytes) -> bool:
        """Give the token to a browser whose user followed the link with it. The application never sees the link."""
        headers = {"Location": "/", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        if self._may_bypass(given):
            name, token = PREVIEW_COOKIE.decode(), self.state.get("preview_token")
            headers["Set-Cookie"] = f"{name}={token}; Path=/; HttpOnly; SameSite=Lax"
        keep = visitor.skip_body() and request.keep_alive and not self._stopping
        self._reply(visitor, 303, headers, b"", request, keep=keep)
        return keep

    def _peer(self, visitor: VisitorWire) -> tuple[str, bool]:
        """Return the address of whom a connection comes from, and whether to believe what he says of the visitor."""
        peer = visitor.peer
        known = self._known_peers.get(peer)
        if known is None:
            try:
                address = ipaddress.ip_address(peer.partition("%")[0])
            except ValueError:
                return peer, False
            address = getattr(address, "ipv4_mapped", None) or address
            known = str(address), any(address in network for network in self._trusted_networks)
            if len(self._known_peers) >= _MOST_PEERS:
                self._known_peers.clear()
            self._known_peers[peer] = known
        return known

    def _page(self, visitor: VisitorWire, request: Request, failure: str = "") -> bool:
        """Send the maintenance page, or with status 502 what failed; return whether the connection may stay open."""
        reason = {} if failure else self.state.get("hold") or self.state.get("operation") or {}
        template = "" if failure else self.state.get("template")
        code = 502 if failure else 503
        headers, body = maintenance_page.render(
            reason,
            failure or str(reason.get("message") or self.state.get("message") or maintenance_page.DEFAULT_MESSAGE),
            Path(template) if template else None,
            request.text(b"accept"),
            _REFRESH_SECONDS[time.time_ns() // 1000 % len(_REFRESH_SECONDS)],
            own_page(self.state, code, request.text(b"host")),
        )
        keep = visitor.skip_body() and request.keep_alive and not self._stopping
        self._reply(visitor, code, headers, body, request, keep=keep)
        return keep

    @staticmethod
    def _reply(
        visitor: VisitorWire,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        request: Request | None = None,
        *,
        keep: bool | None,
    ) -> None:
        lines = [
            f"HTTP/1.1 {status} {_REASONS[status]}",
            time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        ]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"Content-Length: {len(body)}")
        if not keep:
            lines.append("Connection: close")
        elif request is not None and request.version == "1.0":
            lines.append("Connection: keep-alive")
        only_head = request is not None and request.method == b"HEAD"
        visitor.write("\r\n".join([*lines, "", ""]).encode() + (b"" if only_head else body))

    # --- control -----------------------------------------------------------------------------------

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one JSON request per connection: {"do": "reload" | "status", "drain_seconds": N}."""
        try:
            order = json.loads(await reader.readline())
            if order.get("do") == "reload":
                self.load()
                await self._drain(float(order.get("drain_seconds", 0)))
            answer = {
                "state": self.state.get("generation"),
                "under_way": len(self._under_way),
                "counts": dict(self._counts),
            }
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        finally:
            writer.close()

    async def _drain(self, seconds: float) -> None:
        """Wait until no request is in progress to addresses that are no longer allowed; then cut the remaining ones."""
        is_open = self.state.get("hold") is None and self.state.get("operation") is None
        public = self.state.get("target") if is_open else None
        preview = self._preview() if self.state.get("preview_token") else None
        left = [
            visit for visit in self._under_way if visit.target not in (public, preview if visit.by_token else public)
        ]
        if left and not await _all_over(left, seconds):
            late = [visit for visit in left if not visit.over.done()]
            for visit in late:
                visit.end()
            await _all_over(late, _CUT_SECONDS)

    async def stop(self) -> None:
        """Let the requests in progress end, for a bounded time, and close all connections."""
        self._stopping = True
        for visitor in list(self._visitors.keys() - self._busy):
            visitor.close()
        if self._under_way:
            await _all_over(list(self._under_way), _SHUTDOWN_SECONDS)
        tasks = list(self._visitors.values())
        for visitor in list(self._visitors):
            visitor.close()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CUT_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_CUT_SECONDS)


async def _all_over(visits: list[Visit], seconds: float) -> bool:
    if not visits:
        return True
    _, late = await asyncio.wait([visit.over for visit in visits], timeout=seconds)
    return not late


class _TurnedAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def raise_limit() -> int:
    """Raise this process's limit of descriptors to its maximum; return that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


async def serve(folder: Path) -> None:
    front = Front(folder, max(16, min(_MOST_CONNECTIONS, (raise_limit() - _OWN_DESCRIPTORS) // 2)))
    loop = asyncio.get_running_loop()
    host, _, port = str(front.state["listen"]).rpartition(":")
    server = await loop.create_server(front.connect, host.strip("[]"), int(port), backlog=1024, reuse_address=True)
    socket_path = folder / "front.sock"
    with contextlib.suppress(FileNotFoundError):
        socket_path.unlink()
    control = await asyncio.start_unix_server(front.control, path=str(socket_path))
    os.chmod(socket_path, 0o600)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await stopping.wait()
    control.close()
    server.close()
    await front.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
