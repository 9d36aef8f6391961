"""What the suites of tests/contract need of each driver: a module or package for each product, found by itself.

A module says which suites its drivers pass: DATASETS (with ANSWERS_SQL also that of databases), FILES, VAULTS, GATES,
RUNTIMES, PACKAGES are dictionaries of functions that open one for a test. VARIANTS names datasets that rotate, because
their driver is mostly the code of another one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.gates import Gate
from tests.harnesses.harness import OpenHarness, OpenPackages, OpenRuntime, OpenVault


def _modules() -> Iterator[ModuleType]:
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        yield importlib.import_module(f"{__name__}.{name}")


def datasets() -> dict[str, OpenHarness]:
    return {name: found for module in _modules() for name, found in getattr(module, "DATASETS", {}).items()}


def databases() -> dict[str, OpenHarness]:
    """Return the datasets that answer SQL."""
    answering = [module for module in _modules() if getattr(module, "ANSWERS_SQL", False)]
    return {name: found for module in answering for name, found in module.DATASETS.items()}


def parameters(found: dict[str, OpenHarness]) -> list[Any]:
    """Return the names of datasets as parameters of a fixture."""
    variants = {name for module in _modules() for name in getattr(module, "VARIANTS", ())}
    return [pytest.param(name, marks=[pytest.mark.variant(name)] if name in variants else []) for name in found]


def files() -> dict[str, Callable[[Path], Files]]:
    return {name: found for module in _modules() for name, found in getattr(module, "FILES", {}).items()}


def vaults() -> dict[str, OpenVault]:
    return {name: found for module in _modules() for name, found in getattr(module, "VAULTS", {}).items()}


def gates() -> dict[str, Callable[[Path], Gate]]:
    return {name: found for module in _modules() for name, found in getattr(module, "GATES", {}).items()}


def runtimes() -> dict[str, OpenRuntime]:
    return {name: found for module in _modules() for name, found in getattr(module, "RUNTIMES", {}).items()}


def packages() -> dict[str, OpenPackages]:
    return {name: found for module in _modules() for name, found in getattr(module, "PACKAGES", {}).items()}
