"""A server that runs on this machine itself, as its own account: its servers refuse to run as root."""

from __future__ import annotations

from pathlib import Path


class OnMachine:
    account: str
    folder: Path

    @property
    def place(self) -> Path:
        """Its folder as the server itself sees it."""
        return self.folder

    @property
    def container(self) -> str:
        """What Holdfast is told of a container."""
        return ""

    def _as_account(self, group: int) -> list[str]:
        """What is put before a command that root gives."""
        return ["setpriv", f"--reuid={self.account}", f"--regid={group}", "--clear-groups"]
