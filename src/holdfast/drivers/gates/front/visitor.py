"""A visitor's connection.

Facts of httptools that this module relies on: lines that come after the headers' end are trailers; a request that asks
for an upgrade is complete without its body, and the rest of the bytes is left to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import httptools

from holdfast.drivers.gates.front.messages import BadMessageError, End, RequestHead
from holdfast.drivers.gates.front.wire import HEADER_BYTES, Part, Wire


class VisitorWire(Wire):
    """A visitor's connection. Requests that come before the last one is answered wait in the queue."""

    def __init__(self, made: Callable[[VisitorWire], None], left: Callable[[VisitorWire], None]) -> None:
        super().__init__()
        self._made, self._left = made, left
        self._target = b""
        self._complete = True  # no request is half received
        self._held: bytes | None = None  # what follows a request for an upgrade
        self._again = b""  # a head without the upgrade, to parse its body
        self._hidden = self._dropping = self._sends_no_more = False
        self.in_request = False  # whether a part of the request that is answered has not been read yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._made(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._left(self)

    def eof_received(self) -> bool:
        self._sends_no_more = True
        if self._raw or not self._complete:
            self.fail(EOFError("the visitor sends no more"))
        elif not self._dropping:
            # A visitor who closes cannot be told from one who only ends his side; nobody sends that way and waits.
            self._left(self)
        else:
            self.close()
        return True

    @property
    def peer(self) -> str:
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    def _feed(self, data: bytes) -> None:
        if self._dropping:
            self._overhead = 0
            return
        if self._held is not None:
            self._held += data
            self._overhead = 0
            self._queued += len(data)
            return
        while data:
            if self._parser is None:
                self._parser = httptools.HttpRequestParser(self)
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data, again = self._again + data[upgrade.args[0] :], self._again
                self._parser, self._hidden, self._again = None, bool(again), b""
                if not again:
                    self._held, self._overhead = data, 0
                    self._queued += len(data)
                    return
            except httptools.HttpParserCallbackError:
                self.fail(self._too_large())
                return
            except httptools.HttpParserError as error:
                self.fail(BadMessageError(400, f"The request cannot be read: {error}."))
                return

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._target = b""
        self._complete = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert isinstance(parser, httptools.HttpRequestParser)
        self._overhead, size = 0, self._size
        headers = self.take_headers()
        if self._hidden:
            self._hidden = False
            return
        head = RequestHead(
            parser.get_method(), self._target, parser.get_http_version(), headers, parser.should_keep_alive()
        )
        framing = [
            (name, value) for name, value in headers if name.lower() in (b"content-length", b"transfer-encoding")
        ]
        if parser.should_upgrade() and framing:
            lines = b"".join(b"%s: %s\r\n" % line for line in framing)
            self._again = b"POST / HTTP/1.1\r\n%s\r\n" % lines
        self._push(head, len(self._target) + size + HEADER_BYTES * len(headers))

    def on_message_complete(self) -> None:
        if self._again:
            return  # without its body
        size = self._size
        self._complete, self._overhead = True, 0
        self._push(End(self.take_headers()), size)

    def skip_body(self) -> bool:
        """Drop what has come of a request's body; return whether that was all of it."""
        while self._parts and self.in_request:
            self._pop()
        return not self.in_request

    def _pop(self) -> Part:
        part = super()._pop()
        self.in_request = not isinstance(part, End)
        return part

    def go_on(self) -> None:
        """Parse what came after a request for an upgrade that was not granted as further requests."""
        if self._held is not None:
            held, self._held = self._held, None
            self._queued -= len(held)
            self.data_received(held)
            self._resume_reading()

    def begin_tunnel(self) -> None:
        super().begin_tunnel()
        held, self._held = self._held, None
        if held:
            self._queued -= len(held)
            self._push(held)

    async def linger(self, seconds: float) -> None:
        """End our side, and drop what the visitor still sends, so that he can read the answer first."""
        self._dropping = True
        self._parts.clear()
        self._queued = 0
        if self.lost or self._sends_no_more:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._resume_reading()
        self._failure = None
        with contextlib.suppress(TimeoutError, OSError):
            await self.receive(seconds)
