"""Signals, a closed pipe, stuck and its ways out, another boot, an edited configuration."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.load import load
from holdfast.errors import InterruptedOperationError, RefusedError, StepError, StuckError
from holdfast.operations import recover
from holdfast.steps import gate, preflight
from holdfast.steps.closing import CompleteBackup
from holdfast.system.processes import end_processes_with
from tests import kept
from tests.e2e.cli import argv, output, run, run_json, start
from tests.proof import patience
from tests.site import Site


@pytest.fixture
def at_v2() -> Iterator[Site]:
    with kept.site(tags=("v1", "v2"), slow=4.0) as site:
        yield site


def begin_v5(site: Site, **options: object) -> subprocess.Popen[bytes]:
    """An upgrade that stands in the middle of its migration."""
    process = start(site, "upgrade", "v5", **options)
    deadline = patience.deadline(30)
    while not (site.media / "piece-2.txt").exists():
        assert time.monotonic() < deadline, output(site)
        assert process.poll() is None, output(site)
        time.sleep(0.02)
    return process


def wait_until_it_answers(site: Site) -> None:
    deadline = patience.deadline(10)
    while site.get("/")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_the_command_and_undoes(at_v2: Site, number: signal.Signals) -> None:
    before = at_v2.fingerprint()
    process = begin_v5(at_v2)
    process.send_signal(number)
    assert process.wait(patience.limit(30)) == 130, output(at_v2)
    assert "Stopping, and undoing what was done. (Ctrl-C again" in output(at_v2)
    assert at_v2.fingerprint() == before
    assert at_v2.get("/")[1]["version"] == "v2"
    assert run_json(at_v2, "status")["data"]["operations"] == []


def test_the_second_signal_only_stops_waiting(at_v2: Site) -> None:
    before = at_v2.fingerprint()
    process = begin_v5(at_v2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(patience.limit(30)) == 8, "the operation is open"
    assert "holdfast recover" in output(at_v2)
    operations = run_json(at_v2, "status")["data"]["operations"]
    assert [item["state"] for item in operations] == ["interrupted"]
    refused = run(at_v2, "backup", "create")
    assert refused.returncode == 8
    assert "holdfast recover" in refused.stderr
    status = run(at_v2, "status").stdout
    assert "operation    upgrade to v5 (maintenance): interrupted\nbegun        20" in status
    assert "run          holdfast recover\n" in status
    assert max(map(len, status.splitlines())) <= 80
    off = run(at_v2, "maintenance", "off")
    assert "Visitors still see the maintenance page: upgrade to v5 (maintenance) is open. Run: holdfast" in off.stderr
    assert run(at_v2, "recover").returncode == 0
    assert at_v2.fingerprint() == before
    assert at_v2.get("/")[1]["version"] == "v2"


def test_sighup_and_a_closed_pipe_do_not_fail_an_upgrade(at_v2: Site) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        argv(at_v2, "upgrade", "v5", "-v"), stdin=subprocess.DEVNULL, stdout=writer, stderr=writer
    )
    os.close(writer)
    deadline = patience.deadline(30)
    while not (at_v2.media / "piece-2.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(reader)
    process.send_signal(signal.SIGHUP)
    process.wait(patience.limit(30))
    assert at_v2.get("/")[1]["version"] == "v5"
    assert run_json(at_v2, "status")["data"]["operations"] == []


def kill_in_migration(site: Site) -> None:
    process = begin_v5(site)
    process.kill()
    process.wait(patience.limit(10))


def end_what_was_left(site: Site) -> None:
    """Ends the commands of the interrupted operation, as a reboot does."""
    with contextlib.closing(site.open()) as app:
        operation = app.journal.interrupted()[0].id
    end_processes_with(f"HOLDFAST_OPERATION={operation}", grace_seconds=0, wait_seconds=10)


def all_run(site: Site) -> bool:
    """Whether every service of the site runs."""
    with contextlib.closing(site.open()) as app:
        return all(status.running for status in app.context.runtime.statuses().values())


def test_recover_after_another_boot_starts_what_ran_before(at_v2: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = at_v2.fingerprint()
    kill_in_migration(at_v2)
    # A reboot: nothing runs any more, and the boot id is another one.
    end_what_was_left(at_v2)
    at_v2.shut_down()
    monkeypatch.setattr("holdfast.engine.lock.boot_id", lambda: "another")
    monkeypatch.setattr("holdfast.engine.runner.boot_id", lambda: "another")
    done = recover.at_boot(load(str(at_v2.config))).recovered
    assert [str(item.outcome) for item in done] == ["undone"]
    assert at_v2.fingerprint() == before
    assert at_v2.get("/")[1]["version"] == "v2"


def test_nothing_starts_at_boot_on_a_mount_point_without_its_mount(
    at_v2: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_v2.shut_down()
    mounted = at_v2.media.with_name("mounted")
    at_v2.media.rename(mounted)
    at_v2.media.mkdir()
    monkeypatch.setattr(recover, "_MOUNT_WAIT_SECONDS", 0.2)
    with pytest.raises(RefusedError, match="is missing"):
        recover.at_boot(load(str(at_v2.config)), wait=lambda _: time.sleep(0.1))
    assert at_v2.get("/")[0] == 0
    at_v2.media.rmdir()
    mounted.rename(at_v2.media)
    # A dataset that no operation has met yet carries no marker, and keeps nothing down.
    at_v2.config.write_text(at_v2.config.read_text() + '\n[files.avatars]\npath = "shared/avatars"\n')
    recover.at_boot(load(str(at_v2.config)))
    wait_until_it_answers(at_v2)


def test_a_state_directory_that_is_not_mounted_is_waited_for(at_v2: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = at_v2.fingerprint()
    kill_in_migration(at_v2)
    at_v2.shut_down()
    hidden = at_v2.state.with_name("hidden")
    at_v2.state.rename(hidden)
    at_v2.state.mkdir()
    monkeypatch.setattr(recover, "_MOUNT_WAIT_SECONDS", 0.2)
    with pytest.raises(RefusedError, match="is empty"):
        recover.at_boot(load(str(at_v2.config)), wait=lambda _: time.sleep(0.1))
    assert not list(at_v2.state.iterdir())

    def mount(_: float) -> None:
        at_v2.state.rmdir()
        hidden.rename(at_v2.state)

    done = recover.at_boot(load(str(at_v2.config)), wait=mount).recovered
    assert [str(item.outcome) for item in done] == ["undone"]
    assert at_v2.fingerprint() == before


@contextlib.contextmanager
def somebody_else_on(port: int) -> Iterator[None]:
    """As another application of the machine that was given the port while ours was down."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def port_of_web(site: Site) -> int:
    return int(json.loads((site.state / "services.json").read_text())[0]["port"])


def test_an_undo_gives_up_a_port_that_somebody_else_took(at_v2: Site) -> None:
    before, port = at_v2.fingerprint(), port_of_web(at_v2)
    process = begin_v5(at_v2)
    with somebody_else_on(port):
        process.send_signal(signal.SIGINT)
        assert process.wait(patience.limit(30)) == 130, output(at_v2)
        assert (at_v2.fingerprint(), at_v2.get("/")[1]["version"]) == (before, "v2")
        assert run(at_v2, "service", "restart").returncode == 0
        assert at_v2.get("/")[1]["version"] == "v2"
    assert port_of_web(at_v2) != port


@pytest.mark.parametrize("arguments", [("recover", "--auto"), ("service", "start")])
def test_a_start_gives_up_a_port_that_somebody_else_took(at_v2: Site, arguments: tuple[str, ...]) -> None:
    port = port_of_web(at_v2)
    at_v2.shut_down()
    with somebody_else_on(port):
        done = run(at_v2, *arguments)
        assert done.returncode == 0, done.stderr
        wait_until_it_answers(at_v2)
        assert at_v2.get("/")[1]["version"] == "v2"
    assert port_of_web(at_v2) != port


def test_boot_without_an_open_operation_starts_what_ran(at_v2: Site) -> None:
    at_v2.shut_down()
    assert at_v2.get("/")[0] == 0
    assert run(at_v2, "recover", "--auto").returncode == 0
    wait_until_it_answers(at_v2)


@pytest.fixture
def needy(site: Site) -> Site:
    """Installed, with a worker that ends as long as its engine is not there; all of it is down, and the engine gone."""
    worker = '["sh", "-c", "test -e {root}/shared/engine && exec sleep 3600"]'
    site.config.write_text(site.config.read_text() + f"\n[services.queue]\ncommand = {worker}\n")
    (site.app_folder / "shared").mkdir(exist_ok=True)
    (site.app_folder / "shared" / "engine").touch()
    site.operate("install", "v1")
    site.shut_down()
    (site.app_folder / "shared" / "engine").unlink()
    return site


def test_a_service_whose_engine_comes_back_late_is_started_again(needy: Site) -> None:
    seen: list[str] = []

    def wait(seconds: float) -> None:
        time.sleep(seconds / 4)  # first: what was given up meanwhile is started again right after this
        app = needy.open()
        seen.extend(
            status.detail for name, status in app.context.runtime.statuses().items() if name.startswith("queue")
        )
        app.close()
        if "fatal" in seen:  # its runtime gave it up
            (needy.app_folder / "shared" / "engine").touch()

    recover.at_boot(load(str(needy.config)), wait=wait)
    assert "fatal" in seen
    assert all_run(needy)
    wait_until_it_answers(needy)


def test_a_service_that_does_not_come_back_is_told(needy: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "_ENGINE_WAIT_SECONDS", 1.0)
    with pytest.raises(StepError, match="queue"):
        recover.at_boot(load(str(needy.config)))
    wait_until_it_answers(needy)


def test_a_boot_that_was_killed_is_done_again(needy: Site) -> None:
    """Nothing is lost with it: what should run stands in a file."""
    booting = start(needy, "recover", "--auto")
    deadline = patience.deadline(30)
    while needy.get("/")[0] != 200:  # it has begun, and waits for the queue
        assert time.monotonic() < deadline
        time.sleep(0.05)
    booting.kill()
    booting.wait()
    (needy.app_folder / "shared" / "engine").touch()
    done = run(needy, "recover", "--auto")
    assert done.returncode == 0, done.stderr
    assert all_run(needy)


def test_a_recovery_at_boot_is_tried_again(at_v2: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = recover.recover, []

    def stuck_at_first(*arguments: object, **options: object) -> object:
        asked.append(1)
        if len(asked) < 3:
            raise StuckError("the database server is still coming back")
        return real(*arguments, **options)  # type: ignore[arg-type]  # handed on as they came

    at_v2.shut_down()
    monkeypatch.setattr(recover, "recover", stuck_at_first)
    recover.at_boot(load(str(at_v2.config)), wait=lambda _: None)
    assert len(asked) == 3
    wait_until_it_answers(at_v2)


def test_a_recovery_at_boot_is_not_tried_again_where_only_the_operator_can_help(
    at_v2: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(*arguments: object, **options: object) -> object:
        error = StuckError("the container has no grep")
        error.may_pass = False
        raise error

    at_v2.shut_down()
    monkeypatch.setattr(recover, "recover", stuck)
    with pytest.raises(StuckError):
        recover.at_boot(load(str(at_v2.config)), wait=lambda _: pytest.fail("it waited"))
    wait_until_it_answers(at_v2)  # the services that should run were started


_complete = CompleteBackup.do


@pytest.fixture
def closing(at_v2: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A restore that is committed, whose safety backup cannot be finished."""

    def fails(*_: object) -> None:
        raise StepError("the vault is away")

    at_v2.operate("backup")
    set_id = run_json(at_v2, "backup", "list")["data"]["backups"][-1]["id"]
    with monkeypatch.context() as patched:
        patched.setattr(CompleteBackup, "do", fails)
        with pytest.raises(InterruptedOperationError, match="after the commit"):
            at_v2.operate("restore", set_id)
        patched.setattr("holdfast.engine.lock.boot_id", lambda: "another")
        patched.setattr("holdfast.engine.runner.boot_id", lambda: "another")
        yield at_v2


def test_visitors_need_not_wait_for_closing_steps_after_a_reboot(
    closing: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "_ENGINE_WAIT_SECONDS", 0.0)
    closing.shut_down()
    with pytest.raises(InterruptedOperationError):
        recover.at_boot(load(str(closing.config)))
    wait_until_it_answers(closing)


def test_closing_steps_are_tried_again_by_the_same_boot(closing: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def late(*arguments: Any) -> None:
        asked.append(1)
        if len(asked) < 3:
            raise StepError("the vault is not mounted yet")
        _complete(*arguments)

    closing.shut_down()
    with monkeypatch.context() as patched:
        patched.setattr(CompleteBackup, "do", late)
        done = recover.at_boot(load(str(closing.config)), wait=lambda _: None).recovered
    assert ([str(item.outcome) for item in done], len(asked)) == (["committed"], 3)
    wait_until_it_answers(closing)


def test_what_was_replaced_and_is_in_no_backup_is_not_removed(closing: Site) -> None:
    app = closing.open()
    (operation,) = recover.abandon(app, "for a test")
    before = {path: path.stat().st_size for path in preflight.private_folders(app.context)}
    assert any(operation in path.name for path in before), before
    for path in before:
        os.utime(path, (0, 0))
    closing.operate("backup")  # its preflight removes what is outdated
    assert set(preflight.private_folders(app.context)) == set(before)
    app.close()
    told = run(closing, "check")
    assert (
        f"data replaced by {operation}" in told.stdout + told.stderr and "is in no backup" in told.stdout + told.stderr
    )


def test_while_an_operation_is_open_the_front_shows_the_page_after_a_reboot(at_v2: Site) -> None:
    kill_in_migration(at_v2)
    end_what_was_left(at_v2)
    at_v2.shut_down()
    with contextlib.closing(at_v2.open()) as app:
        gate.ensure_running(app.context)
    deadline = patience.deadline(10)
    while at_v2.get("/")[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert at_v2.get("/")[0] == 503


@pytest.mark.parametrize("damage", ["this is no TOML [", '[application]\nname = "other"\nstate = "/nowhere"\n'])
def test_recovery_uses_the_configuration_of_the_operation(at_v2: Site, damage: str) -> None:
    before = at_v2.fingerprint()
    kill_in_migration(at_v2)
    kept = at_v2.config.read_text()
    at_v2.config.write_text(damage)
    done = run(at_v2, "recover")
    assert done.returncode == 0, done.stderr
    at_v2.config.write_text(kept)
    assert at_v2.fingerprint() == before
    assert at_v2.get("/")[1]["version"] == "v2"


@pytest.fixture
def stuck(folder: Path) -> Iterator[Site]:
    """An upgrade whose migration takes the old release's folder away and fails: the undo cannot start it again."""
    with kept.site() as site:
        make_stuck(site, folder)
        yield site


def make_stuck(site: Site, folder: Path) -> None:
    releases = site.app_folder / "releases"
    old = next(path for path in releases.iterdir() if path.name.endswith("-v1"))
    evil = folder / "evil.py"
    evil.write_text(f"import os, sys\nos.rename({str(old)!r}, {str(folder / 'gone')!r})\nsys.exit(1)\n")
    text = site.config.read_text()
    site.config.write_text(text.replace('["python3", "manage.py", "migrate"]', f'["python3", "{evil}"]'))
    site.old_release = old  # type: ignore[attr-defined]
    site.before = site.fingerprint()  # type: ignore[attr-defined]
    done = run(site, "upgrade", "v2")
    assert done.returncode == 7, done.stderr
    assert "--abandon" in done.stderr and "backup restore" in done.stderr
    assert site.get("/")[0] == 503
    site.config.write_text(text)


def test_stuck_fails_closed_and_recover_tries_again(stuck: Site, folder: Path) -> None:
    assert run(stuck, "recover").returncode == 7
    assert run(stuck, "upgrade", "v2").returncode == 8
    os.rename(folder / "gone", stuck.old_release)  # type: ignore[attr-defined]
    assert run(stuck, "recover").returncode == 0
    assert stuck.get("/")[1]["version"] == "v1"
    assert stuck.fingerprint() == stuck.before  # type: ignore[attr-defined]


def test_a_restore_supersedes_a_stuck_operation(stuck: Site) -> None:
    done = run(stuck, "backup", "restore", "latest")
    assert done.returncode == 0, done.stderr
    assert stuck.get("/")[1]["version"] == "v1"
    assert stuck.fingerprint() == stuck.before  # type: ignore[attr-defined]
    outcomes = [item["outcome"] for item in run_json(stuck, "log", "list")["data"]["operations"]]
    assert outcomes[:2] == ["committed", "superseded"]


def test_abandon_closes_it_as_it_stands(stuck: Site) -> None:
    done = run(stuck, "recover", "--abandon", "mended by hand")
    assert done.returncode == 0
    assert "holdfast service start" in done.stdout and "maintenance\noff" in done.stdout
    assert stuck.get("/")[0] == 503
    assert run_json(stuck, "status")["data"]["operations"] == []
    assert run(stuck, "maintenance", "off").returncode == 0
    assert run_json(stuck, "log", "list")["data"]["operations"][1]["outcome"] == "abandoned"


def test_after_a_reboot_every_report_says_what_to_run(at_v2: Site) -> None:
    at_v2.shut_down()
    status, check, recovered = (run(at_v2, *arguments) for arguments in (("status",), ("check",), ("recover",)))
    assert "gate         not running; visitors get no answer" in status.stdout
    assert "run          holdfast recover --auto" in status.stdout
    assert "no service is running" not in status.stdout
    assert check.returncode == 4
    assert "error    gate: the gate does not run: visitors get no answer" in check.stdout
    assert "Not running, and should run: front, web. Run: holdfast recover --auto" in recovered.stdout
    auto = run(at_v2, "recover", "--auto")
    assert auto.stdout.splitlines() == ["started: front, web", "no operation was interrupted"]
    assert at_v2.get("/")[0] == 200
