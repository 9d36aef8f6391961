"""Commands at the same time: nothing is lost, and what is refused names the holder."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import argv, run, run_json, start
from tests.e2e.test_interruptions import begin_v5
from tests.proof import patience
from tests.site import Site


@pytest.fixture
def big() -> Iterator[Site]:
    """A site whose backup takes a moment."""
    with kept.site(tags=("v1", "v2"), slow=3.0) as site:
        for number in range(3):
            (site.media / f"large-{number}").write_bytes(bytes([number]) * (96 << 20))
        yield site


def whole(site: Site) -> int:
    done = run(site, "backup", "verify")
    assert done.returncode == 0, done.stderr
    return len(run_json(site, "backup", "list")["data"]["backups"])


@contextmanager
def standing_still(command: subprocess.Popen[bytes]) -> Iterator[None]:
    """Keeps a command from ending before others have met it, however slow the machine is."""
    command.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        command.send_signal(signal.SIGCONT)


def test_two_backups_and_a_prune_at_the_same_time(big: Site) -> None:
    before = whole(big)
    processes = [
        subprocess.Popen(
            argv(big, *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for arguments in (("backup", "create"), ("backup", "create"), ("backup", "prune"))
    ]
    results = []
    for process in processes:
        _, errors = process.communicate(timeout=patience.limit(60))
        results.append((process.returncode, errors))
    assert {code for code, _ in results} <= {0, 5}
    assert any(code == 0 for code, _ in results)
    for code, errors in results:
        if code == 5:
            assert "is running" in errors and "process" in errors
    assert whole(big) >= min(before, 3)


def test_two_upgrades_at_once(big: Site) -> None:
    first = begin_v5(big)
    with standing_still(first):
        second = run(big, "upgrade", "v5")
    assert second.returncode == 5
    assert "upgrade to v5" in second.stderr and str(first.pid) in second.stderr
    assert first.wait(patience.limit(60)) == 0
    assert big.get("/")[1]["version"] == "v5"


def test_a_backup_during_an_upgrade_is_refused_and_maintenance_works(big: Site) -> None:
    upgrade = begin_v5(big)
    with standing_still(upgrade):
        refused = run(big, "backup", "create")
        assert refused.returncode == 5
        assert "upgrade to v5" in refused.stderr
        assert run(big, "maintenance", "on", "--comment", "meanwhile").returncode == 0
    assert upgrade.wait(patience.limit(60)) == 0
    assert big.get("/")[0] == 503
    assert run(big, "maintenance", "off").returncode == 0
    assert big.get("/")[1]["version"] == "v5"


def test_an_upgrade_waits_for_a_backup_and_maintenance_does_not(big: Site) -> None:
    backup = start(big, "backup", "create")
    lock = big.state / "locks" / "backup.lock"
    deadline = patience.deadline(20)
    while not (lock.exists() and "backup" in lock.read_text() and run_json(big, "status")["data"]["operations"]):
        if backup.poll() is not None:
            break
        assert time.monotonic() < deadline
    assert run(big, "maintenance", "on").returncode == 0
    assert run(big, "maintenance", "off").returncode == 0
    assert run(big, "upgrade", "v5").returncode == 0
    assert backup.wait(patience.limit(60)) == 0
    assert whole(big) >= 3


def test_prune_after_a_killed_upgrade_and_before_recover(big: Site) -> None:
    process = begin_v5(big)
    process.kill()
    process.wait(patience.limit(10))
    sets = run_json(big, "backup", "list")["data"]["backups"]
    refused = run(big, "backup", "prune")
    assert refused.returncode == 8
    assert "upgrade to v5" in refused.stderr and "holdfast recover" in refused.stderr
    assert run_json(big, "backup", "list")["data"]["backups"] == sets
    assert run(big, "recover").returncode == 0
    assert run(big, "backup", "prune").returncode == 0
    whole(big)


def test_a_second_state_directory_for_the_same_data_is_refused(big: Site, folder: Path) -> None:
    before = big.fingerprint()
    text = big.config.read_text()
    big.config.write_text(
        text.replace(str(big.state), str(folder / "state2")).replace(str(big.vault), str(folder / "vault2"))
    )
    done = run(big, "backup", "create")
    assert done.returncode == 4
    assert str(big.state) in done.stderr
    big.config.write_text(text)
    assert big.fingerprint() == before
