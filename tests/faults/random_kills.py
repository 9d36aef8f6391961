"""Kills at random moments: `python -m tests.faults.random_kills --rounds 300 --seed 1 --engine sqlite`.

The enumerated points are where Holdfast writes. These are anywhere, even in the middle of a command, of a start, of an
undo. A writer goes on all the time; what was acknowledged to it must be there afterwards, with its file, but where a
restore or a rollback is what takes it away. Prints a line per round and the figures at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.engine import fence
from tests import conftest  # noqa: F401  # sets up the PATH by which applications find their programs
from tests.e2e.cli import argv
from tests.memory import make_folder
from tests.site import Site

Ids = frozenset[int]
# Each with how often it is chosen. {set} is a backup that is known, {tag} a release.
OPERATIONS = {
    "upgrade {good}": 6,
    "upgrade {good} --again": 2,
    "upgrade {bad}": 4,
    "upgrade v6 --rolling": 2,
    "upgrade v6.1 --source": 1,
    "rollback": 3,
    "backup create": 4,
    "backup create --consistency live": 2,
    "backup create --quiesce": 1,
    "backup restore {set}": 4,
    "backup restore {set} --only main": 1,
    "backup restore {set} --only media": 1,
    "backup prune": 1,
    "package build v6": 1,
    "maintenance on": 1,
    "maintenance off": 2,
    "service restart": 2,
    "service stop": 1,
    "service start": 2,
}
GOOD, BAD = ("v2", "v5", "v6", "v6.1"), ("v3", "v4")
_TAKES_AWAY = ("backup restore", "rollback")
_FIRST_GUESS_SECONDS = 2.0
_MOST_SECONDS = 240


class Writer:
    """Posts entries one after the other; keeps which were acknowledged."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.acknowledged: set[int] = set()
        self._go, self._end = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._resting = threading.Event()
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._end:
            if not self._go.is_set():
                self._resting.set()
                self._go.wait(1)
                continue
            self._resting.clear()
            number += 1
            status, body = self._site.post(f"entry {number} {os.urandom(8).hex()}".encode(), timeout=5)
            if status == 201:
                self.acknowledged.add(int(body["id"]))
            time.sleep(0.01)

    def go(self) -> None:
        self._resting.clear()
        self._go.set()

    def rest(self) -> None:
        self._go.clear()
        self._resting.wait(30)

    def end(self) -> None:
        self._end = True
        self._thread.join(10)


@dataclass
class Ground:
    site: Site
    rng: random.Random
    writer: Writer
    sets: dict[str, tuple[Ids, Ids]] = field(default_factory=dict)
    """Of each backup what it has at least and at most."""
    earlier: set[str] = field(default_factory=set)
    """Backups from before the first round, one of them from before the installation, when no table was there."""
    took: dict[str, float] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    checked: int = 0

    def rows(self) -> dict[int, tuple[str, str]]:
        app = self.site.open()
        try:
            found = app.context.databases["main"].query("SELECT id, file, sha256 FROM entries")
            return {int(row[0]): (str(row[1]), str(row[2])) for row in found}
        finally:
            app.close()

    def present(self) -> set[str]:
        app = self.site.open()
        try:
            assert app.context.vault is not None
            return {backup.id for backup in app.context.vault.backups()}
        finally:
            app.close()

    def choose(self) -> str:
        operation = self.rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        if "{set}" in operation and not self.sets:
            operation = "backup create"
        arguments = {"good": self.rng.choice(GOOD), "bad": self.rng.choice(BAD)}
        return operation.format(set=self.rng.choice(sorted(self.sets)) if self.sets else "", **arguments)

    def run_and_kill(self, operation: str) -> bool:
        """Run a command and kill it after a while; False if it was faster."""
        kind = " ".join(operation.split()[:2])
        usual = self.took.get(kind, _FIRST_GUESS_SECONDS)
        began = time.monotonic()
        process = subprocess.Popen(
            argv(self.site, *operation.split()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(self.rng.uniform(0.05, 1.15 * usual))
            self.took[kind] = 0.5 * usual + 0.5 * (time.monotonic() - began)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.took[kind] = max(usual, 1.1 * (time.monotonic() - began)) if self.rng.random() < 0.3 else usual
            return True

    def recover(self) -> None:
        """Once or twice killed itself."""
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            self.run_and_kill("recover")
        done = subprocess.run(
            argv(self.site, "recover"), capture_output=True, text=True, timeout=_MOST_SECONDS, check=False
        )
        assert done.returncode in (0, 4), f"recover: {done.returncode}\n{done.stderr}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv(self.site, *arguments), capture_output=True, text=True, timeout=_MOST_SECONDS, check=False
        )

    def round(self, number: int) -> str:
        operation = self.choose()
        takes_away = operation.startswith(_TAKES_AWAY)
        before: Ids = frozenset(self.rows())
        known = set(self.sets)
        self.writer.acknowledged.clear()
        if not takes_away:
            self.writer.go()
        killed = self.run_and_kill(operation)
        extra = ""
        if killed and self.rng.random() < 0.15:
            extra = self.kill_more()
        self.recover()
        self.writer.rest()
        self.check(operation, before, known, takes_away=takes_away)
        if self.rng.random() < 0.3:
            self.run("maintenance", "off")
            self.run("service", "start")
        return f"{number}: {operation}: {'killed' if killed else 'done'}{extra}, {self.site.release_label()}"

    def kill_more(self) -> str:
        """The supervisord of the services, or every keeper, as a machine short of memory may do."""
        app = self.site.open()
        try:
            if self.rng.random() < 0.5:
                pid = int((self.site.state / "supervisor" / "supervisord.pid").read_text())
                os.kill(pid, signal.SIGKILL)
                return " (and supervisord)"
            for record in (self.site.state / "processes").glob("*"):
                for line in record.read_text().splitlines():
                    if line.startswith("keeper "):
                        os.kill(int(line.split()[1]), signal.SIGKILL)
            return " (and its keeper)"
        except (OSError, ValueError):
            return ""
        finally:
            app.close()

    def check(self, operation: str, before: Ids, known: set[str], *, takes_away: bool) -> None:
        rows = self.rows()
        now: Ids = frozenset(rows)
        app = self.site.open()
        try:
            assert app.journal.unfinished() == [], "something is unfinished"
            for record in app.journal.operations(3):
                assert fence.survivors(record.id, app.journal.record_of_processes(record.id)) == []
            vault = app.context.vault
            assert vault is not None
            present = {backup.id for backup in vault.backups()}
            assert vault.damaged() == []
        finally:
            app.close()
        acknowledged = frozenset(self.writer.acknowledged)
        if not takes_away:
            lost = (before | acknowledged) - now
            assert not lost, f"{len(lost)} acknowledged writes are lost: {sorted(lost)[:5]}"
            self.checked += len(acknowledged)
        elif not before <= now:
            fits = [id for id in known if self.sets[id][0] <= now <= self.sets[id][1]]
            assert fits, f"{len(now)} rows are neither those from before ({len(before)}) nor those of a backup"
        if not takes_away or before <= now:
            for file, digest in (rows[id] for id in sorted(acknowledged)):
                content = (self.site.media / file).read_bytes()
                assert hashlib.sha256(content).hexdigest() == digest, f"{file} has another content"
        for id in present - known - self.earlier:
            self.sets[id] = (before, before | now | acknowledged)
        for id in set(self.sets) - present:
            del self.sets[id]
        kind = " ".join(operation.split()[:2])
        self.outcomes[kind] += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", default="sqlite")
    options = parser.parse_args()
    folder = make_folder("hfx")
    site = Site(folder / "s", engine=options.engine, rows=60, files=40, slow=0.2)
    writer = Writer(site)
    try:
        ground = Ground(site, random.Random(options.seed), writer)
        assert ground.run("install", "v1").returncode == 0
        assert ground.run("upgrade", "v2").returncode == 0
        print(f"seed {options.seed}, {options.engine}", flush=True)
        ground.earlier = ground.present()
        for number in range(1, options.rounds + 1):
            try:
                print(ground.round(number), flush=True)
            except BaseException:
                print(f"round {number} of seed {options.seed} failed; its folder is {folder}", flush=True)
                raise
        assert ground.run("backup", "verify").returncode == 0
        print(
            f"{options.rounds} rounds, {ground.checked} acknowledged writes checked, nothing lost:"
            f" {dict(ground.outcomes)}"
        )
    finally:
        writer.end()
        site.shut_down()
    site.store.drop() if hasattr(site.store, "drop") else None
    shutil.rmtree(Path(folder), ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
