"""The methods of a dataset that the part with the databases next to the live one carries out."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Shadows(Protocol):
    """The candidates and replaced databases of one live database."""

    def hand_over(self, token: str, name: str, rehearsal: bool) -> None: ...

    def discard(self, token: str) -> None: ...

    def tokens(self) -> list[str]: ...


_ShadowsT = TypeVar("_ShadowsT", bound=Shadows)


class WithShadows(Generic[_ShadowsT]):
    """A driver whose shadow databases answer for themselves."""

    def __init__(self, shadows: _ShadowsT) -> None:
        self._shadows = shadows

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        self._shadows.hand_over(token, name, rehearsal)

    def discard(self, token: str) -> None:
        self._shadows.discard(token)

    def tokens(self) -> list[str]:
        return self._shadows.tokens()
