"""One visitor's request on its way to the web, and the answer on its way back, both streamed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from holdfast.drivers.gates.front.messages import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    AnswerHead,
    BadMessageError,
    End,
    Request,
    body_of_answer,
    chunk,
    head_for_visitor,
    last_chunk,
)
from holdfast.drivers.gates.front.visitor import VisitorWire
from holdfast.drivers.gates.front.web import WebWire, connect
from holdfast.drivers.gates.front.wire import Part, Wire

_CONNECT_SECONDS = 10
_CONTINUE_SECONDS = 1.0  # for a web that knows nothing of `Expect: 100-continue`
_STALLED_SECONDS = 60.0  # for a visitor who sends no more of his request, or reads no more of the answer
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WRITE_BYTES = 64 << 10


class WebError(Exception):
    """The web did not answer, or its answer was cut short."""


class VisitorLeftError(Exception):
    """The visitor closed the connection, or reads no more."""


class Relay:
    def __init__(self, visitor: VisitorWire, request: Request, reusable: bool) -> None:
        self._visitor = visitor
        self._request = request
        self._reusable = reusable  # whether the visitor's connection may stay open
        self._continued = self._uploaded = False
        self._sending: list[bytes] = []
        self._size = 0
        self.begun = False  # whether the visitor may have received a part of the answer

    async def run(self, address: str, head: bytes) -> bool:
        """Relay the request; return whether the connection can be used again.

        Raise WebError, VisitorLeftError, or BadMessageError for a request or answer that cannot be read to its end.
        """
        try:
            web = await connect(address, self._request.method, _CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise WebError(f"the web cannot be reached: {error}") from None
        upload = None
        try:
            web.write(head)
            if self._request.body != NO_BODY:
                upload = asyncio.create_task(self._upload(web))
            elif not self._visitor.skip_body():
                raise BadMessageError(400, "The request is incomplete.")
            answer = await self._final_head(web)
            if answer.status == 101:
                await self._tunnel(web, answer)
                return False
            await self._answer(web, answer)
            return self._reusable
        finally:
            if upload is not None:
                upload.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await upload
            if not web.transport.is_closing():
                web.abort()

    async def _upload(self, web: WebWire) -> None:
        """Send the request's body. What goes wrong with the visitor ends the wait for the web's answer."""
        chunked = self._request.body == CHUNKED
        try:
            part = await self._first_part()
            while not isinstance(part, End):
                assert isinstance(part, bytes)
                web.write(chunk(part) if chunked else part)
                try:
                    await web.drain()
                except ConnectionError:
                    return  # the web may have answered nevertheless
                part = await self._visitor.receive(_STALLED_SECONDS)
            if chunked:
                web.write(last_chunk(part.trailers))
            self._uploaded = True
        except TimeoutError:
            web.fail(BadMessageError(408, "The request did not arrive in time."))
        except (EOFError, ConnectionError):
            web.fail(VisitorLeftError())
        except BadMessageError as error:
            web.fail(error)

    async def _first_part(self) -> Part:
        if self._request.expects_continue:
            try:
                return await self._visitor.receive(_CONTINUE_SECONDS)
            except TimeoutError:
                if not (self._continued or self.begun):
                    self._continued = True
                    self._visitor.write(_CONTINUE)
        return await self._visitor.receive(_STALLED_SECONDS)

    async def _next(self, web: WebWire) -> AnswerHead | End | bytes:
        try:
            return cast("AnswerHead | End | bytes", await web.receive())
        except EOFError:
            raise WebError("the web closed the connection") from None
        except ConnectionError as error:
            raise WebError(str(error)) from None

    async def _final_head(self, web: WebWire) -> AnswerHead:
        """Return the head of the answer, after those that only announce it were passed on."""
        while True:
            answer = await self._next(web)
            assert isinstance(answer, AnswerHead)
            if answer.status == 101 and not self._request.upgrades:
                raise BadMessageError(502, "The web changed the protocol without being asked.")
            if answer.status == 101 or answer.status >= 200:
                return answer
            known = answer.status == 100 and (self._continued or not self._request.expects_continue)
            if self._request.version == "1.1" and not known:
                self._continued = self._continued or answer.status == 100
                self._visitor.write(head_for_visitor(answer, ()))

    async def _answer(self, web: WebWire, answer: AnswerHead) -> None:
        body = body_of_answer(self._request.method, answer)
        chunked = body in (CHUNKED, UNTIL_CLOSE) and self._request.version == "1.1"
        if self._request.body != NO_BODY and not self._uploaded:
            self._reusable = False  # unless the rest of the request comes, nobody knows where the next one begins
        if body in (CHUNKED, UNTIL_CLOSE) and not chunked:
            self._reusable = False
        extra = [b"Transfer-Encoding: chunked"] if chunked else []
        if not self._reusable:
            extra.append(b"Connection: close")
        elif self._request.version == "1.0":
            extra.append(b"Connection: keep-alive")
        self._send(head_for_visitor(answer, extra))
        while True:
            if self._size > _WRITE_BYTES or not web.has_parts:
                await self._flush()
            part = await self._next(web)
            if isinstance(part, End):
                break
            assert isinstance(part, bytes)
            self._send(chunk(part) if chunked else part)
        if chunked:
            self._send(last_chunk(part.trailers))
        await self._flush()

    def _send(self, data: bytes) -> None:
        self._sending.append(data)
        self._size += len(data)

    async def _flush(self) -> None:
        if self._sending:
            self.begun = True
            self._visitor.write(b"".join(self._sending))
            self._sending, self._size = [], 0
            try:
                await self._visitor.drain(_STALLED_SECONDS)
            except (ConnectionError, TimeoutError):
                raise VisitorLeftError from None

    async def _tunnel(self, web: WebWire, answer: AnswerHead) -> None:
        """Pass bytes both ways, such as the messages of a WebSocket, until one side ends."""
        self._visitor.begin_tunnel()
        self._send(head_for_visitor(answer, [b"Connection: Upgrade"]))
        await self._flush()
        ways = [asyncio.create_task(_pump(self._visitor, web)), asyncio.create_task(_pump(web, self._visitor))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._visitor.close()
            web.close()


async def _pump(source: Wire, sink: Wire) -> None:
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            sink.write(cast(bytes, await source.receive()))
            await sink.drain()
