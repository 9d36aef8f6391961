"""Protocols of gates, which hold visitors and route them to a web service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from holdfast.model import GateState, Problem, ServiceInstance


class Gate(Protocol):
    """The place where visitors are held or let in."""

    def state(self) -> GateState: ...

    def close(self, reason: Mapping[str, Any], preview_target: str | None = None) -> None:
        """Hold visitors for an operation; return once no visitor's request is under way. Idempotent.

        With a preview target, the holder of the secret cookie (`GateState.preview_token`) is let through to it.
        """

    def open(self) -> None:
        """End an operation's hold; an operator's own stays. Idempotent."""

    def hold(self, reason: Mapping[str, Any] | None) -> None:
        """Set the operator's own maintenance, or end it (None). Idempotent."""

    def route(self, release: str, target: str) -> None:
        """Route visitors to another web service, after draining the previous one. Idempotent."""

    def answers(self) -> bool:
        """Return whether the gate can hold and relay now: its own server runs, where it has one."""

    def instance(self) -> ServiceInstance | None:
        """Return the gate's own server as a service, or None where the proxy is the user's."""

    def check(self) -> list[Problem]: ...


class Proxy(Protocol):
    """Additional methods of a gate that is the user's own proxy."""

    @property
    def is_inside(self) -> bool:
        """Return whether the proxy runs in a container, and reaches others over their networks."""

    def probe_upstream(self, target: str) -> None:
        """Prove that the proxy reaches a web service that has no visitors yet. Idempotent. Raise StepError."""
