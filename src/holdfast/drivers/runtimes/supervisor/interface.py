"""Calls of supervisord's own interface: XML-RPC over HTTP, on its socket.

The client of the standard library would bring HTTP, TLS and mail with it: more than all else that `status` imports.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.parsers import expat

_BLOCK_BYTES = 1 << 16
_SCALARS: Mapping[str, Callable[[str], object]] = {
    "int": int,
    "i4": int,
    "boolean": lambda text: text == "1",
    "string": str,
    "double": float,
    "nil": lambda text: None,
}


class RefusedCallError(Exception):
    """A call that supervisord refused; `text` begins with one of its own identifiers, for example BAD_NAME."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def call(socket_path: Path, name: str, *arguments: str | bool) -> object:
    """Return the answer to one call. Raise RefusedCallError, and OSError where nothing answers in this protocol."""
    parameters = "".join(f"<param><value>{_value(argument)}</value></param>" for argument in arguments)
    body = (
        "<?xml version='1.0'?>"
        f"<methodCall><methodName>supervisor.{name}</methodName><params>{parameters}</params></methodCall>"
    ).encode()
    head = (
        "POST /RPC2 HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.fspath(socket_path))
        connection.sendall(head.encode() + body)
        blocks = list(iter(lambda: connection.recv(_BLOCK_BYTES), b""))
    answer, _, content = b"".join(blocks).partition(b"\r\n\r\n")
    status = answer.split(maxsplit=2)[1:2]
    if status != [b"200"]:
        line = answer.partition(b"\r\n")[0].decode(errors="replace")
        raise OSError(0, f"supervisord answers {line or 'nothing'}")
    return _read(content)


def _value(argument: str | bool) -> str:
    if isinstance(argument, bool):
        return f"<boolean>{int(argument)}</boolean>"
    escaped = argument.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<string>{escaped}</string>"


def _read(content: bytes) -> object:
    """Return the value of an answer. Raise RefusedCallError for a fault, OSError for anything else."""
    parts = _Parts()
    parser = expat.ParserCreate()
    parser.StartElementHandler = parts.start
    parser.EndElementHandler = parts.end
    parser.CharacterDataHandler = parts.text.append
    try:
        parser.Parse(content, True)
        (value,) = parts.values
    except (expat.ExpatError, ValueError, IndexError) as error:
        raise OSError(0, f"supervisord's answer is not understood: {error}") from error
    if parts.is_fault:
        raise RefusedCallError(str(value["faultString"]) if isinstance(value, dict) else str(value))
    return value


class _Parts:
    """What was read of an answer so far; a list or a struct is open until its end is read."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self.text: list[str] = []
        self.is_fault = False
        self._begins: list[int] = []
        self._has_type = False

    def start(self, name: str, _: Mapping[str, str]) -> None:
        if name in ("array", "struct"):
            self._begins.append(len(self.values))
        self.text.clear()
        self._has_type = name != "value"  # a value without a type is a string
        self.is_fault = self.is_fault or name == "fault"

    def end(self, name: str) -> None:
        text = "".join(self.text)
        if name in _SCALARS:
            self.values.append(_SCALARS[name](text))
        elif name == "name" or (name == "value" and not self._has_type):
            self.values.append(text)
        elif name in ("array", "struct"):
            begin = self._begins.pop()
            items = self.values[begin:]
            self.values[begin:] = [items if name == "array" else dict(zip(items[::2], items[1::2], strict=True))]
        self._has_type = True
        self.text.clear()
