"""Connections of the front, to visitors and to the web: bytes in, parts of messages out, in bounded memory.

Facts of httptools that this module relies on: lines that come after the headers' end are trailers; a request that asks
for an upgrade is complete without its body, and the rest of the bytes is left to the caller; the answer to HEAD is not
known to have no body.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import httptools

from holdfast.drivers.gates.front.messages import (
    BY_LENGTH,
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    AnswerHead,
    BadMessageError,
    End,
    Headers,
    RequestHead,
    body_of_answer,
)

Part = RequestHead | AnswerHead | End | bytes

_QUEUE_BYTES = 128 << 10  # what is read ahead of the other side, besides the 256 KiB that one read may bring
_HEAD_QUEUED = 1 << 10
_REQUEST_OVERHEAD_BYTES = 64 << 10  # for the head, for all trailers, and for what stands between two chunks
_ANSWER_OVERHEAD_BYTES = 256 << 10
_SALVAGE_BYTES = 64 << 10
_CLOSE_SECONDS = 60.0


class Wire(asyncio.Protocol):
    """A connection: a queue of received parts, and writing that waits for a slow reader."""

    overhead_bytes = _REQUEST_OVERHEAD_BYTES
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None
        self._parts: deque[Part] = deque()
        self._queued = 0
        self._failure: Exception | None = None  # what receive() raises after the last part
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._blocked = self._reading_paused = self._raw = False
        self.lost = False
        self._headers: Headers = []
        self._size = self._overhead = 0

    # --- what the event loop calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._raw:
            self._push(data)
        elif self._failure is None:
            self._overhead += len(data)
            self._feed(data)
            if self._overhead > self.overhead_bytes:
                self.fail(self._too_large())
        if self._queued > _QUEUE_BYTES and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._parser = None  # the two refer to each other
        self.fail(ConnectionResetError("the connection was closed"))
        self._resume_writer()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._resume_writer()

    def _resume_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # --- what the parser calls ---------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError

    def _too_large(self) -> Exception:
        return BadMessageError(431, "The head of the message is too large.")

    def on_message_begin(self) -> None:
        self._headers, self._size = [], 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > self.overhead_bytes:
            raise OverflowError
        self._headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        self._push(data)

    # --- what the front calls ----------------------------------------------------------------------

    def _push(self, part: Part) -> None:
        self._parts.append(part)
        self._queued += len(part) if isinstance(part, bytes) else _HEAD_QUEUED
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def fail(self, error: Exception) -> None:
        """Make receive() raise an error once the parts that have come are used up; only the first one counts."""
        if self._failure is None:
            self._failure = error
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def has_parts(self) -> bool:
        return bool(self._parts)

    async def receive(self, seconds: float | None = None) -> Part:
        """Return the next part. Raise TimeoutError, BadMessageError, EOFError or ConnectionError."""
        timer = None
        try:
            while not self._parts:
                if self._failure is not None:
                    raise self._failure
                self._reader = self._loop.create_future()
                if seconds is not None:
                    timer = self._loop.call_later(seconds, _expire, self._reader)
                await self._reader
        finally:
            self._reader = None
            if timer is not None:
                timer.cancel()
        return self._pop()

    def _pop(self) -> Part:
        part = self._parts.popleft()
        self._queued -= len(part) if isinstance(part, bytes) else _HEAD_QUEUED
        self._resume_reading()
        return part

    def _resume_reading(self) -> None:
        if self._reading_paused and self._queued <= _QUEUE_BYTES // 2 and not self.lost:
            self._reading_paused = False
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self.lost:
            self.transport.write(data)

    async def drain(self, seconds: float | None = None) -> None:
        """Wait until more may be written. Raise ConnectionError, or TimeoutError if nothing is read for so long."""
        while self._blocked and not self.lost:
            left = self.transport.get_write_buffer_size()
            self._writer = self._loop.create_future()
            timer = None if seconds is None else self._loop.call_later(seconds, _expire, self._writer)
            try:
                await self._writer
            except TimeoutError:
                if self.transport.get_write_buffer_size() >= left:
                    raise
            finally:
                self._writer = None
                if timer is not None:
                    timer.cancel()
        if self.lost:
            raise ConnectionResetError("the connection was closed")

    def begin_tunnel(self) -> None:
        """Pass bytes as they come from now on."""
        self._raw = True

    def close(self) -> None:
        """Close the connection once what was written is sent, or after a while."""
        if not self.lost:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self._loop.call_later(_CLOSE_SECONDS, self.transport.abort)

    def abort(self) -> None:
        if not self.lost:
            self.transport.abort()


def _expire(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


class VisitorWire(Wire):
    """A visitor's connection. Requests that come before the last one is answered wait in the queue."""

    def __init__(self, made: Callable[[VisitorWire], None], left: Callable[[VisitorWire], None]) -> None:
        super().__init__()
        self._made, self._left = made, left
        self._target = b""
        self._complete = True  # no request is half received
        self._held: bytes | None = None  # what follows a request for an upgrade
        self._again = b""  # a head without the upgrade, to parse its body
        self._hidden = self._dropping = False
        self.in_request = False  # whether a part of the request that is answered has not been read yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._made(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._left(self)

    def eof_received(self) -> bool:
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
        self._overhead = self._size = 0
        if self._hidden:
            self._hidden = False
            return
        headers, self._headers = self._headers, []
        head = RequestHead(
            parser.get_method(), self._target, parser.get_http_version(), headers, parser.should_keep_alive()
        )
        framing = [
            (name, value) for name, value in headers if name.lower() in (b"content-length", b"transfer-encoding")
        ]
        if parser.should_upgrade() and framing:
            lines = b"".join(b"%s: %s\r\n" % line for line in framing)
            self._again = b"POST / HTTP/1.1\r\n%s\r\n" % lines
        self._push(head)

    def on_message_complete(self) -> None:
        if self._again:
            return  # without its body
        trailers, self._headers = self._headers, []
        self._complete, self._overhead = True, 0
        self._push(End(trailers))

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
        if self.lost:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._resume_reading()
        self._failure = None
        with contextlib.suppress(TimeoutError, OSError):
            await self.receive(seconds)


class WebWire(Wire):
    """A connection to the web service, for one request."""

    overhead_bytes = _ANSWER_OVERHEAD_BYTES

    def __init__(self, method: bytes) -> None:
        super().__init__()
        self._method = method
        self._status = 0
        self._reason = b""
        self._body = BY_LENGTH
        self._ended = False
        parser = httptools.HttpResponseParser(self)
        # As other proxies do, take a lone line feed and spaces after a chunk's size from a web.
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._parser = parser

    def eof_received(self) -> bool:
        self._finish()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and not self._ended and not self._raw:
            self._salvage()
        if error is None or self._raw:  # else an answer that only the end of the connection ends may be cut short
            self._finish()
        super().connection_lost(error)

    def _salvage(self) -> None:
        """Read the answer of a web that closed before it had the whole body, where a write to it failed first."""
        with contextlib.suppress(OSError):
            with self.transport.get_extra_info("socket").dup() as rest:
                rest.setblocking(False)
                while data := rest.recv(_SALVAGE_BYTES):
                    self._feed(data)

    def _finish(self) -> None:
        if self._raw:
            self.fail(EOFError("the web sends no more"))
        elif self._body == UNTIL_CLOSE and not self._ended and self._failure is None:
            self._end([])

    def _end(self, trailers: Headers) -> None:
        self._ended = True
        self._push(End(trailers))

    def _feed(self, data: bytes) -> None:
        if self._ended or self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._status == 101:
                self._raw = True
                if rest := data[upgrade.args[0] :]:
                    self._push(rest)
        except httptools.HttpParserCallbackError:
            if not self._ended:
                self.fail(BadMessageError(502, "The web's answer is not supported."))
        except httptools.HttpParserError:
            if not self._ended:
                self.fail(BadMessageError(502, "The web's answer cannot be read."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        assert isinstance(self._parser, httptools.HttpResponseParser)
        self._status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        self._overhead = self._size = 0
        answer = AnswerHead(self._status, self._reason, headers)
        self._body = body_of_answer(self._method, answer)
        self._push(answer)
        if self._status >= 200 and self._body == NO_BODY:
            self._end([])

    def on_body(self, data: bytes) -> None:
        if not self._ended:
            super().on_body(data)

    def on_message_complete(self) -> None:
        self._overhead = 0
        if self._status >= 200 and not self._ended:
            self._end(self._headers if self._body == CHUNKED else [])


async def connect(address: str, method: bytes, seconds: float) -> WebWire:
    """Return a connection to host:port. Raise OSError or TimeoutError."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(seconds):
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: WebWire(method), host.strip("[]"), int(port)
        )
    return wire
