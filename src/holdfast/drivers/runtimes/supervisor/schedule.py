"""`python -I -m holdfast.drivers.runtimes.supervisor.schedule FOLDER ENVIRONMENT`: start tasks at their times.

It reads holdfast.toml again when it changed, so a task that is removed there is started no more. Each run is a
`holdfast schedule run NAME` of its own. On SIGTERM nothing new is started, and the runs in progress end by themselves;
what they need of the runtime is stopped after this process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from holdfast.config.load import FILE_NAME, load, read_files
from holdfast.config.schema.schedule import Schedule
from holdfast.drivers.runtimes.supervisor import schedule_log
from holdfast.errors import HoldfastError
from holdfast.system.host import Host

_TICK_SECONDS = 0.5


class Scheduler:
    """The tasks with the time at which each is due next, and the runs in progress."""

    def __init__(self, folder: Path, environment: str) -> None:
        self._folder = folder
        self._environment = environment
        self._state = Path()
        self._files = [folder / FILE_NAME]
        self._stamps: list[float] | None = None
        self._tasks: Mapping[str, Schedule] = {}
        self._due: dict[str, float] = {}
        self._runs: dict[str, threading.Thread] = {}
        self.stopping = threading.Event()

    def read(self) -> None:
        """Read the configuration if its files changed; a wrong one changes nothing."""
        stamps = [path.stat().st_mtime if path.exists() else 0.0 for path in self._files]
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            loaded = load(str(self._folder), self._environment)
        except HoldfastError as error:
            print(f"the former schedule goes on: {error}", flush=True)  # noqa: T201 # into the log of this service
            return
        self._state, tasks = loaded.state, loaded.configuration.schedule
        self._files = read_files(loaded)
        now = time.time()
        self._due = {
            name: self._due[name]
            if name in self._due and task == self._tasks.get(name)
            else schedule_log.next_run(task, schedule_log.last_start(self._state, name), now)
            for name, task in tasks.items()
        }
        self._tasks = tasks

    def start_due(self) -> None:
        """Start what is due; skip a task of which a run is still in progress."""
        now = time.time()
        for name, due in self._due.items():
            if due > now:
                continue
            self._due[name] = schedule_log.next_run(self._tasks[name], now, now)
            if name in self._runs and self._runs[name].is_alive():
                schedule_log.write(self._state, name, {"event": "skipped", "why": "the run before still goes on"})
                continue
            self._runs[name] = threading.Thread(target=self._run, args=(name,))
            self._runs[name].start()

    def _run(self, name: str) -> None:
        argv = [sys.executable, "-I", "-m", "holdfast", "schedule", "run", name, "--config", str(self._folder)]
        try:
            # It belongs to this service, so whoever stops the service finds it.
            mine = {key: os.environ[key] for key in ("HOLDFAST_INSTANCE",) if key in os.environ}
            own = [*argv, "--environment", self._environment, "--quiet"]
            Host().run(own, cwd="/", environment=mine, check=False)
        except HoldfastError as error:
            print(error, flush=True)  # noqa: T201 # into the log of this service

    def wait(self) -> None:
        """Wait for the runs in progress."""
        for run in self._runs.values():
            run.join()


def main() -> None:
    folder, environment = sys.argv[1:3]
    scheduler = Scheduler(Path(folder), environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.stopping.set())
    os.umask(0o022)
    while not scheduler.stopping.is_set():
        scheduler.read()
        scheduler.start_due()
        scheduler.stopping.wait(_TICK_SECONDS)
    scheduler.wait()


if __name__ == "__main__":
    main()
