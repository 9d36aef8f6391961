"""Secrets that Holdfast keeps itself: each value encrypted by age in one file, for an identity in another.

Every change replaces the whole file, so that it is the former one or the new one whatever happens. The file may be
copied and backed up by anybody who may see names; values need the identity.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from holdfast.errors import HoldfastError, RefusedError
from holdfast.system import durable

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MOST_RETIRED = 10
_FORMAT = 1


class Kept(msgspec.Struct, frozen=True):
    """One value: its ciphertext, and who set it when."""

    age: str
    at: str
    by: str


class _Content(msgspec.Struct, frozen=True, omit_defaults=True):
    format: int = _FORMAT
    recipient: str = ""
    ready: dict[str, Kept] = {}
    pending: dict[str, Kept] = {}
    retired: dict[str, list[str]] = {}
    """Earlier values of each name, by which they stay masked in what services printed then."""


class SecretStore:
    def __init__(self, path: Path, identity: Path) -> None:
        """Take the file of the values and that of the identity; neither need exist."""
        self.path = path
        self.identity_path = identity

    # --- reading -----------------------------------------------------------------------------------

    def _read(self) -> _Content:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return _Content()
        try:
            found = msgspec.json.decode(text, type=_Content)
        except msgspec.DecodeError as error:
            raise HoldfastError(
                f"{self.path} is damaged: {error}",
                next_step="Bring it back: holdfast backup restore latest --only config",
            ) from error
        if found.format != _FORMAT:
            raise HoldfastError(f"{self.path} has format {found.format}, which this version does not know")
        return found

    @property
    def recipient(self) -> str:
        """Return the public key for which values are encrypted; empty before the first one."""
        return self._read().recipient

    def ready(self) -> dict[str, Kept]:
        return self._read().ready

    def pending(self) -> dict[str, Kept]:
        return self._read().pending

    def value(self, name: str) -> str:
        """Return the value that is in use. Raise HoldfastError, which names the secret and never its value."""
        content = self._read()
        if name not in content.ready:
            waits = " yet: it is pending" if name in content.pending else ""
            raise HoldfastError(
                f"secret {name} has no value{waits}",
                next_step="Run: holdfast secret apply" if waits else f"Run: holdfast secret set {name}",
            )
        return self._decrypted(name, content.ready[name].age)

    def pending_value(self, name: str) -> str:
        return self._decrypted(name, self.pending()[name].age)

    def all_values(self) -> list[str]:
        """Return every value that the file has, also pending and earlier ones, to mask them. Raise HoldfastError."""
        content = self._read()
        found = [(name, kept.age) for kind in (content.ready, content.pending) for name, kept in kind.items()]
        found += [(name, age) for name, ages in content.retired.items() for age in ages]
        return [self._decrypted(name, age) for name, age in found]

    # --- changing ----------------------------------------------------------------------------------

    def set(self, name: str, value: str, by: str) -> None:
        """Keep a value as pending; the one in use stays. Raise HoldfastError."""
        identity = self._identity(create=True)
        content = self._read()
        recipient = str(identity.to_public())
        self._require_same(content.recipient, recipient)
        import pyrage  # noqa: PLC0415 # only where secrets are kept

        age = base64.b64encode(pyrage.encrypt(value.encode(), [identity.to_public()])).decode()
        kept = Kept(age, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), by)
        self._write(msgspec.structs.replace(content, recipient=recipient, pending={**content.pending, name: kept}))

    def content(self) -> bytes:
        """Return the whole file, for an undo; empty if there is none."""
        return self.path.read_bytes() if self.path.exists() else b""

    def put_back(self, content: bytes) -> None:
        if content:
            durable.write_file(self.path, content, 0o600)
        else:
            durable.unlink(self.path)

    def switch(self, before: bytes, names: Iterable[str], removed: Iterable[str] = ()) -> None:
        """Put pending values in use and forget removed ones, from the file as it was. Idempotent."""
        content = msgspec.json.decode(before, type=_Content)
        ready, pending, retired = dict(content.ready), dict(content.pending), dict(content.retired)
        for name in (*names, *removed):
            if (old := ready.pop(name, None)) is not None:
                retired[name] = [*retired.get(name, []), old.age][-_MOST_RETIRED:]
        for name in names:
            ready[name] = pending.pop(name)
        for name in removed:
            pending.pop(name, None)
        self._write(msgspec.structs.replace(content, ready=ready, pending=pending, retired=retired))

    def _write(self, content: _Content) -> None:
        durable.write_file(self.path, msgspec.json.format(msgspec.json.encode(content), indent=1), 0o600)

    # --- age ---------------------------------------------------------------------------------------

    def _decrypted(self, name: str, age: str) -> str:
        import pyrage  # noqa: PLC0415 # only where secrets are kept

        try:
            return str(pyrage.decrypt(base64.b64decode(age, validate=True), [self._identity()]).decode())
        except (pyrage.DecryptError, binascii.Error, UnicodeDecodeError) as error:
            raise RefusedError(
                f"secret {name} in {self.path} cannot be decrypted by the identity {self.identity_path}: {error}",
                next_step=f"Put the identity of {self.recipient} there, or set it again: holdfast secret set {name}",
            ) from error

    def _require_same(self, recipient: str, own: str) -> None:
        if recipient and recipient != own:
            raise RefusedError(
                f"{self.path} is encrypted for {recipient}, and {self.identity_path} is the identity of {own}",
                next_step="Put the right identity there."
                f" If it is lost, remove {self.path} and set every secret again.",
            )

    def _identity(self, *, create: bool = False) -> Identity:
        """Return the identity. Raise RefusedError where it is missing, can be read by others or is none."""
        import pyrage  # noqa: PLC0415 # only where secrets are kept

        path = self.identity_path
        try:
            status = path.stat()
            if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (0, os.geteuid()):
                raise RefusedError(
                    f"the identity {path} can be read by others, or belongs to another account",
                    next_step=f"chmod 600 {path}",
                )
            lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
            return pyrage.x25519.Identity.from_str(lines[0] if lines else "")
        except FileNotFoundError:
            if self.path.exists() or not create:
                raise RefusedError(
                    f"the identity {path} does not exist; the secrets are encrypted for {self.recipient or 'it'}",
                    next_step=f"Copy it there from where you keep it. If it is lost, remove {self.path} and set every"
                    " secret again.",
                ) from None
        except pyrage.IdentityError as error:
            raise RefusedError(f"{path} is not an identity of age: {error}") from error
        made = pyrage.x25519.Identity.generate()
        text = f"# public key: {made.to_public()}\n{made}\n"
        durable.make_directory(path.parent)
        durable.write_file(path, text, 0o600)
        return made


def paths_for(store: SecretStore | None, environment: Mapping[str, str]) -> list[str]:
    """Return the paths of a store's two files if a variable refers to a secret in it; none otherwise."""
    if store is None or not any(value.startswith("secret:") for value in environment.values()):
        return []
    return [str(store.path), str(store.identity_path)]
