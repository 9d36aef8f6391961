"""A site whose parts lie on filesystems of their own, brought back to the same saved state again and again."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.system.processes import end_processes_with
from tests.faults.loop import Filesystem
from tests.faults.power_child import Child
from tests.faults.scenarios import Scenario
from tests.proof import patience
from tests.site import Site


class Machine:
    """A machine of filesystems; `layout` has kind and size in MiB for `folder`, and maybe for the other places."""

    def __init__(self, layout: Mapping[str, tuple[str, int | None]], **site: Any) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hf"))
        self.filesystems: dict[str, Filesystem] = {}
        try:
            for part, (kind, size_mib) in layout.items():
                self.filesystems[part] = Filesystem(self._folder, part[0], kind, size_mib)
            self.mount()
            self.paths = {part: found.mountpoint / part[:3] for part, found in self.filesystems.items()}
            parts = {part: path for part, path in self.paths.items() if part != "folder"}
            self.site = Site(self.paths["folder"], **parts, **site)
            self.child = Child()
        except BaseException:
            self._remove_filesystems()
            raise

    @property
    def mountpoints(self) -> list[str]:
        return [str(filesystem.mountpoint) for filesystem in self.filesystems.values()]

    def order(self, what: str, **order: Any) -> tuple[str, str, str]:
        return self.child.run(what, {part: str(path) for part, path in self.paths.items()}, **order)

    # --- states ------------------------------------------------------------------------------------

    def mount(self) -> None:
        for filesystem in self.filesystems.values():
            filesystem.mount()

    def halt(self) -> None:
        """Ends all processes of the site, also what a dead operation left, and unmounts."""
        self.site.shut_down()
        for operation in self._operations():
            end_processes_with(f"HOLDFAST_OPERATION={operation}\0", grace_seconds=0, wait_seconds=10)
        for filesystem in self.filesystems.values():
            filesystem.unmount()

    def _operations(self) -> list[str]:
        """Ids of operations that may have children, as far as a filesystem that was shut down still tells."""
        try:
            return [path.name for path in (self.site.state / "open").iterdir()]
        except OSError:
            return []

    def keep(self) -> None:
        """Saves the site at rest."""
        self.halt()
        for filesystem in self.filesystems.values():
            filesystem.keep()
        self.mount()

    def put_back(self, *, start: bool = True) -> None:
        self.halt()
        for filesystem in self.filesystems.values():
            filesystem.put_back()
        self.mount()
        if start:
            self.site.start()

    def cycle_power(self, *, move: bool) -> None:
        """What lies between the loss of power and the boot: nothing runs, filesystems replay their logs."""
        self.halt()
        if move:
            for filesystem in self.filesystems.values():
                filesystem.move()
        self.mount()

    def wait_for_answer(self) -> None:
        deadline = patience.deadline(20)
        while self.site.get("/")[0] != 200:
            assert time.monotonic() < deadline, f"the application does not answer: {self.site.get('/')}"
            time.sleep(0.02)

    # --- the end -----------------------------------------------------------------------------------

    def remove(self) -> None:
        self.child.close()
        self.site.shut_down()
        self._remove_filesystems()

    def _remove_filesystems(self) -> None:
        for filesystem in self.filesystems.values():
            filesystem.remove()
        shutil.rmtree(self._folder, ignore_errors=True)


def prepare(machine: Machine, scenario: Scenario) -> tuple[str, str | None]:
    """Brings the site to the scenario's old state, saves it and starts it; its fingerprint and release."""
    scenario.prepare(machine.site)
    machine.keep()
    machine.site.start()
    return machine.site.fingerprint(), machine.site.release_label()
