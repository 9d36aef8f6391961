"""Commands: their end, their time-out, their whole session, their output and their secrets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import CancelledError, CommandFailedError, CommandTimeoutError, HoldfastError
from holdfast.system.host import OPERATION_VARIABLE, Host
from holdfast.system.ports import can_be_reached, free_loopback_port
from holdfast.system.pouring import pour
from holdfast.system.processes import processes_with
from tests.proof import patience

VARIABLE = "HOLDFAST_TEST_HOST"


@pytest.fixture
def value() -> Iterator[str]:
    """A variable that marks what one test starts; whatever carries it at the end is killed."""
    value = f"{os.getpid()}-{time.monotonic_ns()}"
    yield value
    for process in processes_with(f"{VARIABLE}={value}\0"):
        os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(params=["without an operation", "in an operation"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Hosts that start commands themselves, and those that have a keeper start them."""
    hosts = []

    def one(**values: Any) -> Host:
        host = Host(**values)
        if request.param == "in an operation":
            host.enter(host.operation or "op-1", tmp_path / "processes" / "op-1")
        hosts.append(host)
        return host

    yield one
    for host in hosts:
        host.leave()


def left(value: str) -> list[str]:
    return [process.command for process in processes_with(f"{VARIABLE}={value}\0")]


def ended(value: str, patience_seconds: float = 20) -> bool:
    """Whether all are gone; one that was killed takes a moment to disappear."""
    deadline = patience.deadline(patience_seconds)
    while left(value):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_output_is_followed_logged_and_its_tail_kept(make: Callable[..., Host]) -> None:
    records: list[Mapping[str, Any]] = []
    host = make(log=records.append)
    result = host.run(["sh", "-c", "echo out; echo err >&2"])
    assert (result.exit_code, result.output_tail) == (0, "out\nerr\n")
    assert [record["kind"] for record in records] == ["command", "output", "exit"] or len(records) == 4
    assert "".join(record.get("text", "") for record in records) == "out\nerr\n"
    assert records[-1]["exit_code"] == 0


def test_a_failing_command_says_which_and_why(make: Callable[..., Host]) -> None:
    with pytest.raises(CommandFailedError, match="exit code 3") as caught:
        make().run(["sh", "-c", "echo the reason; exit 3"])
    assert caught.value.exit_code_of_command == 3
    assert "the reason" in caught.value.output_tail
    assert make().run(["false"], check=False).exit_code == 1


def test_a_command_that_does_not_exist_is_named(make: Callable[..., Host]) -> None:
    for call in (make().run, make().capture):
        with pytest.raises(CommandFailedError, match="no-such-command") as caught:
            call(["/no-such-command"])
        assert caught.value.exit_code_of_command == 127


def test_standard_output_goes_to_a_file_and_errors_to_the_log(make: Callable[..., Host], quick_folder: Path) -> None:
    records: list[Mapping[str, Any]] = []
    with open(quick_folder / "out", "wb") as file:
        result = make(log=records.append).run(["sh", "-c", "printf '\\000\\377'; echo warn >&2"], output=file)
    assert (quick_folder / "out").read_bytes() == b"\0\xff"
    assert result.output_tail == "warn\n"


def test_children_carry_the_operations_mark_and_a_server_does_not(
    make: Callable[..., Host], quick_folder: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(OPERATION_VARIABLE, "an older one")
    host = make(operation="op-1")
    assert host.run(["sh", "-c", f"echo ${OPERATION_VARIABLE}"]).output_tail == "op-1\n"
    assert host.capture(["sh", "-c", f"echo ${OPERATION_VARIABLE}"]) == "op-1\n"
    pid = host.start_server(["sleep", "600"], cwd="/", log_path=quick_folder / "log", environment={VARIABLE: value})
    assert OPERATION_VARIABLE.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


_STUBBORN_FAMILY = "trap '' TERM; sleep 600 & sleep 601 & echo ready; while :; do sleep 1; done"


@pytest.mark.parametrize("script", ["sleep 600 & sleep 601 & wait", "sleep 600 | sleep 601"])
def test_a_time_out_ends_the_whole_session(make: Callable[..., Host], script: str, value: str) -> None:
    with pytest.raises(CommandTimeoutError, match="time-out"):
        make().run(["bash", "-c", script], environment={VARIABLE: value}, timeout_seconds=0.3)
    assert ended(value)


def test_a_time_out_ends_those_that_ignore_sigterm(
    make: Callable[..., Host], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.system.keeper_client._GRACE_SECONDS", 0.2)
    with pytest.raises(CommandTimeoutError):
        make().run(["bash", "-c", _STUBBORN_FAMILY], environment={VARIABLE: value}, timeout_seconds=0.3)
    assert ended(value)


def test_a_time_out_ends_background_jobs_of_the_session(make: Callable[..., Host], value: str) -> None:
    with pytest.raises(CommandTimeoutError):
        make().run(["bash", "-c", "set -m; sleep 600 & wait"], environment={VARIABLE: value}, timeout_seconds=0.3)
    assert ended(value, patience_seconds=1)


def test_a_time_out_ends_one_that_never_stops_writing(make: Callable[..., Host], value: str) -> None:
    rescue = threading.Timer(3, lambda: [os.kill(item.pid, 9) for item in processes_with(f"{VARIABLE}={value}\0")])
    rescue.start()
    try:
        with pytest.raises(CommandTimeoutError):
            make(log=json.dumps).run(["yes"], environment={VARIABLE: value}, timeout_seconds=0.3)
    finally:
        rescue.cancel()
        rescue.join()


def test_cancel_ends_the_whole_session_and_can_be_ignored(make: Callable[..., Host], value: str) -> None:
    with pytest.raises(CancelledError):
        make(cancelled=lambda: True).run(["bash", "-c", "sleep 600 & wait"], environment={VARIABLE: value})
    assert ended(value)
    result = make(cancelled=lambda: True).run(["echo", "done"], ignore_cancel=True)
    assert result.output_tail == "done\n"


PATH = {"PATH": os.environ.get("PATH", os.defpath)}


def test_a_daemon_that_keeps_the_output_open_does_not_hold_us(make: Callable[..., Host], value: str) -> None:
    result = make().run(["bash", "-c", "setsid sleep 600 & echo started"], environment={VARIABLE: value})
    assert (result.exit_code, result.output_tail) == (0, "started\n")
    assert len(left(value)) == 1


# --- secrets ------------------------------------------------------------------------------------------


WRITER = "import os, sys\nfor number in range(5000): os.write(1, bytes([number % 251]) * 8000)\n"


def test_what_a_command_prints_is_poured_whole(make: Callable[..., Host]) -> None:
    taken = bytearray()
    pour(make(), [sys.executable, "-c", WRITER], taken.extend)
    assert taken == b"".join(bytes([number % 251]) * 8000 for number in range(5000))


def test_what_takes_what_is_poured_may_fail(make: Callable[..., Host], value: str) -> None:
    def sink(chunk: bytes) -> None:
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        pour(
            make(),
            [sys.executable, "-c", f"{WRITER}import time\ntime.sleep(60)"],
            sink,
            environment={VARIABLE: value},
        )
    assert ended(value)


def test_pouring_tells_how_a_command_failed(make: Callable[..., Host]) -> None:
    argv = [sys.executable, "-c", "import sys\nprint('half')\nsys.exit('the server is gone')"]
    with pytest.raises(CommandFailedError) as caught:
        pour(make(), argv, lambda chunk: None)
    assert (caught.value.exit_code_of_command, caught.value.output_tail) == (1, "the server is gone\n")


@pytest.fixture
def references(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("GUESTBOOK_PASSWORD", "from-the-environment")
    (quick_folder / "secret").write_text("from-a-file\n")
    return {
        "env:GUESTBOOK_PASSWORD": "from-the-environment",
        f"file:{quick_folder / 'secret'}": "from-a-file",
        "command:echo from-a-command": "from-a-command",
    }


def test_a_resolved_secret_is_redacted_everywhere_from_then_on(references: dict[str, str]) -> None:
    seen: list[str] = []
    host = Host(log=lambda record: seen.append(str(record)), announce=seen.append)
    for reference, value in references.items():
        assert host.resolve_secret(reference) == value
        seen.clear()
        with pytest.raises(CommandFailedError) as caught:
            host.run(["sh", "-c", f"echo {value}; exit 1"])
        shown = f"{seen} {caught.value} {caught.value.output_tail}"
        assert value not in shown
        assert shown.count("[redacted]") >= 4
        with pytest.raises(CommandFailedError) as caught:
            host.capture(["sh", "-c", f"echo {value}; exit 1"])
        assert value not in f"{caught.value} {caught.value.output_tail}"


@pytest.mark.parametrize(
    "reference", ["env:NO_SUCH_VARIABLE", "file:/no/such/file", "command:false", "command:/no/such/command", "plain"]
)
def test_a_secret_that_cannot_be_read_is_named_by_its_reference(reference: str) -> None:
    with pytest.raises(HoldfastError, match=re.escape(reference)):
        Host().resolve_secret(reference)


@pytest.mark.parametrize("kind", ["env", "file"])
def test_a_secret_that_is_not_utf8(kind: str, quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUESTBOOK_PASSWORD", os.fsdecode(b"caf\xe9-au-lait"))
    (quick_folder / "secret").write_bytes(b"caf\xe9-au-lait\n")
    reference = "env:GUESTBOOK_PASSWORD" if kind == "env" else f"file:{quick_folder / 'secret'}"
    try:
        assert os.fsencode(Host().resolve_secret(reference)) == b"caf\xe9-au-lait"
    except HoldfastError as error:
        assert reference in str(error)


_BECOMES_ITSELF = '$ENV{TURN}++; exit if $ENV{TURN} > 2000; exec "perl", "-e", $ENV{SCRIPT}'


def test_a_process_that_keeps_becoming_another_program_is_always_found(value: str) -> None:
    process = subprocess.Popen(
        ["perl", "-e", _BECOMES_ITSELF], env={VARIABLE: value, "SCRIPT": _BECOMES_ITSELF, **PATH}
    )
    try:
        missed = looks = 0
        while process.poll() is None:
            found = left(value)
            looks += 1
            if not found:
                time.sleep(0.05)  # one that is ending has no environment any more, and for a moment is not ended
                missed += process.poll() is None
        assert looks > 20
        assert missed == 0
    finally:
        process.kill()
        process.wait()


def test_a_free_port_can_be_bound() -> None:
    ports = {free_loopback_port() for _ in range(5)}
    assert all(10240 <= port < 32768 for port in ports)
    for port in ports:
        with socket.socket() as service:  # without SO_REUSEADDR, as many servers bind
            service.bind(("127.0.0.1", port))
            service.listen()
            assert not can_be_reached(port), "it is taken now"


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("iptables") is None, reason="sets a rule: needs root and iptables"
)
def test_a_port_whose_connections_go_elsewhere_is_not_free() -> None:
    """The rules of published ports outlive a container engine that was killed, and bind(2) does not see them."""
    arguments = ["unshare", "--net", "sh", "-e", "-c", _RULES, "sh", sys.executable]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    assert answer == ["True", "False"]


_RULES = """
ip link set lo up
"$1" -c "from holdfast.system.ports import can_be_reached; print(can_be_reached(20000))"
iptables -t nat -A OUTPUT -p tcp --dport 20000 -j DNAT --to-destination 127.0.0.1:20001
"$1" -c "from holdfast.system.ports import can_be_reached; print(can_be_reached(20000))"
"""


def test_processes_are_found_by_a_whole_variable(value: str) -> None:
    calls: list[Callable[[], list[str]]] = [lambda: left(value), lambda: left(value[:-1])]
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={VARIABLE: value})
    try:
        deadline = patience.deadline(30)
        while not calls[0]():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert calls[1]() == []
    finally:
        process.kill()
        process.communicate()


def test_a_stream_comes_as_it_is_printed_and_ends_with_its_reader(value: str) -> None:
    host = Host()
    stream = host.stream(["sh", "-c", f"export {VARIABLE}={value}; echo out; echo error >&2; exec sleep 3600"])
    seen = b""
    while seen != b"out\nerror\n":
        seen += next(stream)
    patience.until(lambda: left(value))  # the shell shows the variable once it is the other program
    stream.close()
    assert left(value) == []
    assert b"".join(host.stream(["echo", "all"])) == b"all\n"


def test_a_command_that_cannot_be_started_says_why(make: Callable[..., Host], tmp_path: Path) -> None:
    (tmp_path / "program").write_text("")
    for program, why in (("no-such-program", "No such file"), (f"{tmp_path}/program", "Permission denied")):
        with pytest.raises(CommandFailedError, match=f"cannot start {program}: {why}"):
            make().run([program])
