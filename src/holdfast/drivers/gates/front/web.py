"""A connection to the web.

Facts of httptools that this module relies on: lines that come after the headers' end are trailers; the answer to HEAD
is not known to have no body; what follows an answer that changes the protocol is left to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib

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
    body_of_answer,
)
from holdfast.drivers.gates.front.wire import Wire

_ANSWER_OVERHEAD_BYTES = 256 << 10
_SALVAGE_BYTES = 64 << 10


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
        self._overhead = 0
        answer = AnswerHead(self._status, self._reason, self.take_headers())
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
