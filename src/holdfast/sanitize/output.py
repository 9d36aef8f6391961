"""The file of a sanitized dump: compressed while it is written, and encrypted for its readers where that is asked for.

Parts that were compressed by themselves can be joined: a file of gzip or zstd may have several members or frames.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from holdfast.system import durable

Compression = Literal["gz", "zst"]
_GZIP = 31
_LEVELS: dict[str, int] = {"gz": 3, "zst": 3}
"""The level 3 of zlib-ng takes 1 % more room for a dump than the level 6 of zlib, in a third of its time."""
_BLOCK_BYTES = 1 << 20


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _compressor(compression: Compression) -> _Compressor:
    if compression == "gz":
        from zlib_ng import zlib_ng  # noqa: PLC0415 # only for this format

        return zlib_ng.compressobj(_LEVELS["gz"], zlib_ng.DEFLATED, _GZIP)
    import zstandard  # noqa: PLC0415 # only for this format

    return zstandard.ZstdCompressor(_LEVELS["zst"]).compressobj()


class Part:
    """A part of the file, only readable by its owner."""

    def __init__(self, path: Path, compression: Compression) -> None:
        self.path = path
        self.size_bytes = 0
        """Before the compression."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._compressor = _compressor(compression)

    def write(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self._put(self._compressor.compress(data))

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._put(self._compressor.flush())
        os.close(self._file)


def join(parts: Sequence[Path], target: Path) -> str:
    """Join parts into the file, durably; return its digest. The parts are removed."""
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for part in parts:
            with open(part, "rb") as source:
                while block := source.read(_BLOCK_BYTES):
                    digest.update(block)
                    file.write(block)
            os.unlink(part)
    durable.sync_file(target)
    return digest.hexdigest()


def encrypt(source: Path, target: Path, recipients: Sequence[str]) -> str:
    """Encrypt a file with age for its readers; return the digest of the encrypted file. The plain one is removed."""
    import pyrage  # noqa: PLC0415 # only where a dump is encrypted

    found = [pyrage.x25519.Recipient.from_str(one) for one in recipients]
    with open(source, "rb") as plain, open(target, "xb", opener=_private) as file:
        pyrage.encrypt_io(plain, file, found)
    os.unlink(source)
    durable.sync_file(target)
    with open(target, "rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
