"""The code of all steps by their names, imported when the first of them is asked for: a report runs none."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from holdfast.application.context import ApplicationContext
from holdfast.engine.handlers import Handler


class StepHandlers(Mapping[str, Handler]):
    """The code of every step for the engine, bound to one application."""

    def __init__(self, application: ApplicationContext) -> None:
        self._application = application

    @functools.cached_property
    def _handlers(self) -> Mapping[str, Handler]:
        from holdfast.steps.table import handlers

        return handlers(self._application)

    def __getitem__(self, name: str) -> Handler:
        return self._handlers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)
