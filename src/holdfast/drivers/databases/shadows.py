"""What drivers leave to the part that knows the databases next to the live one."""

from __future__ import annotations

from typing import Protocol


class Shadows(Protocol):
    """The candidates and replaced databases of one live database."""

    def hand_over(self, token: str, name: str, rehearsal: bool) -> None: ...

    def discard(self, token: str) -> None: ...

    def tokens(self) -> list[str]: ...


class WithShadows:
    """The methods of a dataset that its shadows carry out."""

    def __init__(self, shadows: Shadows) -> None:
        self._next_to_it = shadows

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        self._next_to_it.hand_over(token, name, rehearsal)

    def discard(self, token: str) -> None:
        self._next_to_it.discard(token)

    def tokens(self) -> list[str]:
        return self._next_to_it.tokens()
