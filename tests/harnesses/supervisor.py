"""The runtime whose services are processes under supervisord."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from holdfast.drivers.runtimes.supervisor.driver import SupervisorRuntime
from holdfast.system.host import Host
from holdfast.system.processes import end_processes_with
from tests.harnesses.harness import OpenRuntime

STATE = "a 50% 'd' %d"  # people have such folders


@contextmanager
def opened(folder: Path) -> Iterator[SupervisorRuntime]:
    environment_id = f"contract@{folder}"
    made = SupervisorRuntime(folder / STATE, environment_id, Host())
    yield made
    made.shut_down()
    end_processes_with(f"HOLDFAST_INSTANCE={environment_id}/", grace_seconds=0, wait_seconds=10)


RUNTIMES: Mapping[str, OpenRuntime] = {"supervisor": opened}
