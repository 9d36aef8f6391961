"""What holds visitors, and leads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from holdfast.model import (
    GateState,
    Problem,
    ServiceInstance,
)


class Gate(Protocol):
    """How visitors are held."""

    def state(self) -> GateState: ...

    def close(self, reason: Mapping[str, Any], preview_target: str | None = None) -> None:
        """Holds visitors for an operation; returns once no visitor's request is under way. May be repeated.

        With a preview target, the holder of the secret cookie (`GateState.preview_token`) is let through to it.
        """

    def open(self) -> None:
        """Ends an operation's hold; an operator's own stays. May be repeated."""

    def hold(self, reason: Mapping[str, Any] | None) -> None:
        """Sets or ends the operator's own maintenance. May be repeated."""

    def route(self, release: str, target: str) -> None:
        """Sends visitors to another web, after draining the one before. May be repeated."""

    def answers(self) -> bool:
        """Whether the gate can hold and relay now: its own server runs, where it has one."""

    def instance(self) -> ServiceInstance | None:
        """The gate's own server as a service, or None where the proxy is the user's."""

    def check(self) -> list[Problem]: ...


class Proxy(Protocol):
    """What a gate has beside that is the user's own proxy."""

    @property
    def is_inside(self) -> bool:
        """Whether it runs in a container, and reaches others over a network of theirs."""

    def try_out(self, target: str) -> None:
        """Proves that a web which visitors are not led to is reached through the proxy. May be repeated. Raises StepError."""
