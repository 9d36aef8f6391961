"""Plants faults of the kinds that the suite found in the past: `python -m tests.proof.mutations [NUMBER...]`.

Each is planted in a copy of the last commit. The tests then run as for a submission that changes this file, but only
those of one scenario: they have to fail. It takes minutes, so it is no part of any run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.proof.touched import ROOT

_DURABLE = "system/durable.py"
_UNDOES_NOTHING = "        return\n"


@dataclass(frozen=True)
class Fault:
    """One change of a module of the product; `tests` chooses some that have to see it, as pytest's option -k."""

    what: str
    module: str
    before: str
    after: str
    tests: str
    file: str = "faults/test_kill_points.py"

    def plant(self, tree: Path) -> None:
        path = tree / "src" / "holdfast" / self.module
        text = path.read_text()
        if text.count(self.before) != 1:
            raise SystemExit(f"{self.what}: {self.module} no longer has its place once; correct it in {__file__}")
        path.write_text(text.replace(self.before, self.after))


def _without_undo(what: str, module: str, head: str, tests: str) -> Fault:
    return Fault(what, module, head, head + _UNDOES_NOTHING, tests)


FAULTS = (
    Fault(
        "a file is renamed before its content is durable",
        _DURABLE,
        "            view = view[os.write(descriptor, view) :]\n        os.fsync(descriptor)\n",
        "            view = view[os.write(descriptor, view) :]\n",
        "is_durable_before and (upgrade_that_fails or backup_pause)",
        "faults/test_power_loss.py",
    ),
    Fault(
        "a name is not durable after a rename",
        _DURABLE,
        "    sync_directory(target_parent)\n    if source_parent",
        "    if source_parent",
        "is_durable_before and (upgrade_that_fails or backup_pause)",
        "faults/test_power_loss.py",
    ),
    Fault(
        "a step is recorded as done before it is",
        "engine/runner.py",
        "            self.handlers[record.name].do(",
        "            self.journal.step(operation, record.position, StepState.DONE)\n"
        "            self.handlers[record.name].do(",
        "rollback_code_only",
    ),
    Fault(
        "the fence ends nothing",
        "engine/fence.py",
        "    count, left = keeper_client.end_recorded(",
        "    return 0\n    count, left = keeper_client.end_recorded(",
        "ended",
        "unit/test_fence.py",
    ),
    Fault(
        "the gate stays closed after an undo",
        "steps/gate.py",
        "        application.gate.open()\n        instance = application.gate.instance()\n",
        "        instance = application.gate.instance()\n",
        "upgrade_that_fails",
    ),
    _without_undo(
        "what was stopped is not started again",
        "steps/service_steps.py",
        '        """Start only what ran before."""\n',
        "upgrade_that_fails",
    ),
    Fault(
        "the release that failed stays the current one",
        "steps/release.py",
        "        if previous is msgspec.UNSET:\n            return\n        images",
        "        if previous is not None:\n            return\n        images",
        "upgrade_that_fails",
    ),
    Fault(
        "what an undo needs is recorded after the change",
        "steps/release.py",
        "    context.record()\n    application.packages.unpack(package, path, asdict(release))\n",
        "    application.packages.unpack(package, path, asdict(release))\n    context.record()\n",
        "point_ends_old_or_new and install",
    ),
    Fault(
        "an unfinished backup is left in the vault",
        "drivers/vaults/local/vault.py",
        '        self._runs.pop(run, None)\n        durable.remove_tree(self.path / "tmp" / run)\n',
        "        self._runs.pop(run, None)\n",
        "backup_pause",
    ),
    _without_undo(
        "an unfinished export is left in its folder",
        "steps/export.py",
        "    def undo(self, application: ApplicationContext, context: Context[WriteFacts]) -> None:\n",
        "export",
    ),
    Fault(
        "files that were put in place stay after an undo",
        "steps/restore_paths.py",
        "            application.files[name].revert(context.operation)\n",
        "",
        "restore_files",
    ),
    _without_undo(
        "the database is not swapped back",
        "steps/swap.py",
        "    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:\n",
        "import_database",
    ),
)


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), "HEAD"], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def find(fault: Fault) -> str | None:
    """Return the first failure that the submission's tests of one scenario report; None where they see nothing."""
    with _copy() as tree:
        fault.plant(tree)
        arguments = ["--quiet", "--proof", "submission", "--since", "HEAD", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, "-k", fault.tests, f"tests/{fault.file}"],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 0:
        return None
    failures = re.findall(r"^E\s+(\S.*)$", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not failures:
        raise SystemExit(f"{fault.what}: pytest ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr}")
    return failures[0][:100]


def main() -> None:
    """Print a line for each fault; end with 1 if one was not found."""
    chosen = [int(number) for number in sys.argv[1:]] or range(1, len(FAULTS) + 1)
    missed = 0
    for number in chosen:
        found = find(FAULTS[number - 1])
        missed += found is None
        print(f"{number:2} {FAULTS[number - 1].what}: {found or 'NOT FOUND'}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
