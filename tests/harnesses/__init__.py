"""What the suites of tests/contract need of each driver: a module or package for each product, found by itself.

A module with `HARNESSES` takes part in the suite of all datasets; with `ANSWERS_SQL` also in that of databases.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

from tests.harnesses.harness import OpenHarness


def of_datasets() -> dict[str, OpenHarness]:
    """Return every harness by its name."""
    return _found(lambda module: True)


def of_databases() -> dict[str, OpenHarness]:
    """Return the harnesses whose datasets answer SQL."""
    return _found(lambda module: getattr(module, "ANSWERS_SQL", False))


def _found(wanted: Callable[[ModuleType], bool]) -> dict[str, OpenHarness]:
    harnesses: dict[str, OpenHarness] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        module = importlib.import_module(f"{__name__}.{name}")
        if wanted(module):
            harnesses |= getattr(module, "HARNESSES", {})
    return harnesses
