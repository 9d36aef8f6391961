"""The interface through which a running plan reports to the operator."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    def step_started(self, title: str, position: int, total: int, *, undo: bool) -> None: ...

    def step_ended(self, title: str, seconds: float, *, undo: bool, failed: bool) -> None: ...

    def progress(self, done: int, total: int | None, unit: str) -> None: ...

    def say(self, line: str) -> None: ...


class SilentObserver:
    def step_started(self, title: str, position: int, total: int, *, undo: bool) -> None:
        pass

    def step_ended(self, title: str, seconds: float, *, undo: bool, failed: bool) -> None:
        pass

    def progress(self, done: int, total: int | None, unit: str) -> None:
        pass

    def say(self, line: str) -> None:
        pass
