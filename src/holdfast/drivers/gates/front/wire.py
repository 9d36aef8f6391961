"""A connection of the front, to a visitor or to the web: bytes in, parts of messages out, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque

import httptools

from holdfast.drivers.gates.front.messages import (
    AnswerHead,
    BadMessageError,
    End,
    Headers,
    RequestHead,
)

Part = RequestHead | AnswerHead | End | bytes

_QUEUE_BYTES = 128 << 10  # what is read ahead of the other side, besides the 256 KiB that one read may bring
_PART_BYTES = 200  # what a part takes besides its bytes
HEADER_BYTES = 150  # what a header line takes besides its bytes
_REQUEST_OVERHEAD_BYTES = 64 << 10  # for the head, for all trailers, and for what stands between two chunks
_CLOSE_SECONDS = 60.0


class Wire(asyncio.Protocol):
    """A connection: a queue of received parts, and writing that waits for a slow reader."""

    overhead_bytes = _REQUEST_OVERHEAD_BYTES
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None
        self._parts: deque[tuple[Part, int]] = deque()  # with the bytes that each takes, about
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
        self._size += len(name) + len(value) + 4
        if self._size > self.overhead_bytes:
            raise OverflowError
        self._headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        self._push(data)

    def take_headers(self) -> Headers:
        """Return the header lines or trailers that have come, and begin a new list."""
        headers, self._headers = self._headers, []
        self._size = 0
        return headers

    # --- what the front calls ----------------------------------------------------------------------

    def _push(self, part: Part, size: int = 0) -> None:
        weight = _PART_BYTES + (len(part) if isinstance(part, bytes) else size)
        self._parts.append((part, weight))
        self._queued += weight
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
        part, weight = self._parts.popleft()
        self._queued -= weight
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
