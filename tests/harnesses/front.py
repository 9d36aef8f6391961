"""The gate that is a server of Holdfast's own, and the gate that holds nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.drivers.gates.front.driver import FrontGate
from holdfast.drivers.gates.none import NoGate
from holdfast.drivers.protocols.gates import Gate

GATES: Mapping[str, Callable[[Path], Gate]] = {
    "front": lambda folder: FrontGate(folder, "127.0.0.1:9"),
    "none": NoGate,
}
