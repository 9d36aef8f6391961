"""`python -m tests.bench.operation ORDER`: one operation of Holdfast's drivers in a process of its own.

The drivers are used exactly as the steps of an operation use them. Prints JSON: the peak of this process's own
memory, and what the vault counted.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.vaults.local.vault import LocalVault
from holdfast.model import Backup
from holdfast.system.host import Host


def _nothing(*_: object) -> None:
    pass


def _backup(vault: LocalVault, files: LocalFiles) -> dict[str, Any]:
    latest = vault.latest()
    sequence = latest.sequence + 1 if latest else 1
    run = vault.begin(f"run{sequence}")
    stored = run.store_tree(files.name, files, keep_vanished=False, check=_nothing, progress=_nothing)
    manifest = Backup(
        id=vault.new_id(),
        sequence=sequence,
        created_at="",
        instant="",
        consistency="quiesce",
        application="bench",
        environment="test",
        operation=run.id,
        release={},
        datasets={files.name: {"kind": "files"}},
        packs=[],
        holdfast_version="bench",
        size_bytes=stored.size_bytes,
        new_bytes=stored.new_bytes,
    )
    run.finish(manifest)
    vault.publish(run.id)
    return dict(msgspec.to_builtins(stored))


def _restore(vault: LocalVault, files: LocalFiles) -> dict[str, Any]:
    latest = vault.latest()
    assert latest is not None
    source = vault.open_set(latest.id)
    moves = files.stage("restore", source.listing(files.name), source.fetch, _nothing)
    files.apply("restore")
    files.discard("restore")
    return {"moves": moves}


def _verify(vault: LocalVault) -> dict[str, Any]:
    problems = vault.verify(None, _nothing, _nothing)
    if problems:
        raise SystemExit(problems[0])
    return {}


def main() -> None:
    order = json.loads(sys.argv[1])
    began = time.monotonic()
    vault = LocalVault(Path(order["vault"]), "bench.test", Host())
    files = LocalFiles("media", Path(order["root"]), host=Host())
    if order["do"] == "backup":
        facts = _backup(vault, files)
    elif order["do"] == "restore":
        facts = _restore(vault, files)
    else:
        facts = _verify(vault)
    # Not getrusage: its peak counts what the parent had in memory before this program was started.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps({"peak_mb": int(peak[1]) / 1024, "seconds": time.monotonic() - began, **facts}))


if __name__ == "__main__":
    main()
