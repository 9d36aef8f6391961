"""`python -m holdfast.drivers.gates.front.server FOLDER`: the small proxy that owns the public address.

It reads FOLDER/gate.json at its start and on each order over FOLDER/front.sock. Without a readable file, or with one
that names no release, visitors get the maintenance page.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import resource
import signal
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp import web

from holdfast.drivers.gates import maintenance_page

if TYPE_CHECKING:  # the proxy starts without the modules that write this file
    from holdfast.drivers.gates.state_file import GateFacts

PREVIEW_COOKIE = "holdfast_preview"
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
}
_CONNECT_SECONDS = 10
_IDLE_SECONDS = 60.0  # for a visitor who sends nothing, or an incomplete request head
_MOST_CONNECTIONS = 20_000
_OWN_DESCRIPTORS = 64

_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class Front:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session: aiohttp.ClientSession | None = None
        self._under_way: dict[asyncio.Task[object], str] = {}
        self._cut: set[asyncio.Task[object]] = set()  # requests that the drain ended
        self._counts: Counter[str] = Counter()
        self._busy: Counter[asyncio.BaseTransport | None] = Counter()
        self._rested: weakref.WeakKeyDictionary[asyncio.BaseTransport, float] = weakref.WeakKeyDictionary()
        self.state: GateFacts = {}
        self.load()

    def load(self) -> None:
        try:
            self.state = json.loads((self._folder / "gate.json").read_text())
        except (OSError, ValueError):
            # Fail closed, because an unreadable state is not known to be committed.
            self.state = {**self.state, "operation": {"comment": ""}}

    async def start(self) -> None:
        # Each request gets its own connection to the web service: a web service may close an idle connection just when
        # it is used again, and a POST that fails this way cannot be repeated.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def turned_away(self) -> None:
        self._counts["turned away"] += 1

    def quiet_since(self, transport: asyncio.BaseTransport, made: float) -> float | None:
        """Return when a connection's last request ended, or when it was made; None while a request is in progress."""
        return None if transport in self._busy else self._rested.get(transport, made)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    # --- visitors ----------------------------------------------------------------------------------

    def _target(self, request: web.BaseRequest) -> str | None:
        """Return the address to which this request may go now; None for the maintenance page."""
        state = self.state
        if (
            state.get("hold") is None
            and state.get("operation") is None
            and state.get("release")
            and state.get("target")
        ):
            return str(state["target"])
        token, preview = state.get("preview_token"), state.get("preview_target") or state.get("target")
        cookie = request.cookies.get(PREVIEW_COOKIE, "")
        if token and preview and hmac.compare_digest(cookie.encode(), str(token).encode()):
            return str(preview)
        return None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        self._busy[transport] += 1
        try:
            return await self._handle(request)
        finally:
            self._busy[transport] -= 1
            if not self._busy[transport]:
                del self._busy[transport]
                if transport is not None:
                    self._rested[transport] = asyncio.get_running_loop().time()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = self._target(request)
        if target is None:
            self._counts["held"] += 1
            return self._page(request)
        task = asyncio.current_task()
        assert task is not None
        self._under_way[task] = target
        try:
            self._counts["relayed"] += 1
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._relay_websocket(request, target)
            return await self._relay(request, target)
        except (aiohttp.ClientConnectionError, TimeoutError):
            self._counts["unreachable"] += 1
            headers, body = maintenance_page.render(
                {}, "The application does not answer at the moment.", None, request.headers.get("Accept", "")
            )
            return web.Response(status=502, headers=headers, body=body)
        except asyncio.CancelledError:
            # A visitor whose request outlasts the drain is told so, unless a part of the answer is already on its way.
            if task not in self._cut or request.writer.output_size:
                raise
            task.uncancel()
            self._counts["cut"] += 1
            return self._page(request)
        finally:
            self._under_way.pop(task, None)
            self._cut.discard(task)

    def _page(self, request: web.BaseRequest) -> web.Response:
        reason = self.state.get("hold") or self.state.get("operation") or {}
        template = self.state.get("template")
        headers, body = maintenance_page.render(
            reason,
            str(reason.get("message") or self.state.get("message") or maintenance_page.DEFAULT_MESSAGE),
            Path(template) if template else None,
            request.headers.get("Accept", ""),
        )
        return web.Response(status=503, headers=headers, body=b"" if request.method == "HEAD" else body)

    def _forwarded(self, request: web.BaseRequest) -> list[tuple[str, str]]:
        dropped = _HOP_BY_HOP | {name.strip().lower() for name in request.headers.get("Connection", "").split(",")}
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
        peer = request.remote or ""
        earlier = request.headers.get("X-Forwarded-For")
        headers = [(name, value) for name, value in headers if name.lower() != "x-forwarded-for"]
        headers.append(("X-Forwarded-For", f"{earlier}, {peer}" if earlier else peer))
        if "X-Forwarded-Proto" not in request.headers:
            headers.append(("X-Forwarded-Proto", request.scheme))
        return headers

    async def _relay(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        assert self._session is not None
        async with self._session.request(
            request.method,
            f"http://{target}{request.raw_path}" if request.raw_path.startswith("/") else f"http://{target}/",
            headers=self._forwarded(request),
            data=request.content if request.body_exists else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _relay_websocket(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        assert self._session is not None
        protocols = [
            name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()
        ]
        headers = [(n, v) for n, v in self._forwarded(request) if not n.lower().startswith("sec-websocket")]
        async with self._session.ws_connect(
            f"http://{target}{request.raw_path}", headers=headers, protocols=protocols, max_msg_size=0
        ) as inner:
            outer = web.WebSocketResponse(protocols=[inner.protocol] if inner.protocol else (), max_msg_size=0)
            await outer.prepare(request)

            async def pump(source: _Socket, sink: _Socket) -> None:
                async for message in source:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        await sink.send_str(message.data)
                    elif message.type is aiohttp.WSMsgType.BINARY:
                        await sink.send_bytes(message.data)
                await sink.close()

            await asyncio.gather(pump(outer, inner), pump(inner, outer))
            return outer

    # --- control -----------------------------------------------------------------------------------

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one JSON request per connection: {"do": "reload" | "status", "drain_seconds": N}."""
        try:
            order = json.loads(await reader.readline())
            if order.get("do") == "reload":
                self.load()
                await self._drain(float(order.get("drain_seconds", 0)))
            writer.write(
                json.dumps(
                    {
                        "state": self.state.get("generation"),
                        "under_way": len(self._under_way),
                        "counts": dict(self._counts),
                    }
                ).encode()
                + b"\n"
            )
            await writer.drain()
        finally:
            writer.close()

    async def _drain(self, seconds: float) -> None:
        """Wait until no request is in progress to addresses that are no longer allowed; then cut the remaining ones."""
        allowed = {self.state.get("preview_target")}
        if self.state.get("hold") is None and self.state.get("operation") is None:
            allowed.add(self.state.get("target"))
        left = [task for task, target in self._under_way.items() if target not in allowed]
        if left:
            _, late = await asyncio.wait(left, timeout=seconds)
            for task in late:
                self._cut.add(task)
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=2)


class Server(web.Server):
    """A web server that keeps descriptors free for the operator's own connection, whatever visitors do.

    Of the descriptors that this process may have, each visitor takes one, and one more while a request is relayed. A
    visitor over the limit is turned away at once; one who sends nothing, or half a request, is disconnected after a
    while.
    """

    def __init__(self, front: Front, most: int) -> None:
        super().__init__(front.handle, keepalive_timeout=_IDLE_SECONDS)
        self._front = front
        self._most = most
        self._open = 0
        self._timers: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def __call__(self) -> web.RequestHandler:
        if self._open >= self._most:
            self._front.turned_away()
            # The event loop needs nothing but a protocol, whatever web.Server promises to return.
            return cast(web.RequestHandler, _TurnedAway())
        self._open += 1
        return super().__call__()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._watch(handler, transport, asyncio.get_running_loop().time(), _IDLE_SECONDS)

    def _watch(self, handler: web.RequestHandler, transport: asyncio.Transport, made: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[handler] = loop.call_later(seconds, self._look, handler, transport, made)

    def _look(self, handler: web.RequestHandler, transport: asyncio.Transport, made: float) -> None:
        loop = asyncio.get_running_loop()
        since = self._front.quiet_since(transport, made)
        left = _IDLE_SECONDS if since is None else since + _IDLE_SECONDS - loop.time()
        if left > 0:
            self._watch(handler, transport, made, left)
            return
        transport.close()  # a pending answer is still sent, but a visitor who does not read it is cut off after a while
        self._timers[handler] = loop.call_later(_IDLE_SECONDS, transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._open -= 1
        self._timers.pop(handler).cancel()
        super().connection_lost(handler, exc)


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
    front = Front(folder)
    await front.start()
    server = Server(front, max(16, min(_MOST_CONNECTIONS, (raise_limit() - _OWN_DESCRIPTORS) // 2)))
    runner = web.ServerRunner(server, shutdown_timeout=10)
    await runner.setup()
    host, _, port = str(front.state["listen"]).rpartition(":")
    await web.TCPSite(runner, host.strip("[]"), int(port), backlog=1024, reuse_address=True).start()
    socket_path = folder / "front.sock"
    with contextlib.suppress(FileNotFoundError):
        socket_path.unlink()
    control = await asyncio.start_unix_server(front.control, path=str(socket_path))
    os.chmod(socket_path, 0o600)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    control.close()
    await runner.cleanup()
    await front.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
