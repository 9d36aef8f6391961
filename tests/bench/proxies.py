"""The front proxy beside nginx: both relay to one tiny upstream, under the same bounded load, on loopback."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

LOAD_SECONDS = 5
_MANY = 16
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second with many connections, and milliseconds with one."""

    requests: float
    p99_ms: float
    alone_ms: float
    errors: int


def missing() -> list[str]:
    return [program for program in ("nginx", "wrk") if shutil.which(program) is None]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _running(argv: list[str], port: int, log: Path) -> Iterator[None]:
    """A server for as long as the block runs; only this process is ended."""
    with open(log, "ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{argv[0]} did not start: {log.read_text()[-500:]}") from None
                time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _nginx(folder: Path, port: int, location: str) -> list[str]:
    folder.mkdir()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; {temporary}\n"
        f"  server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }} }}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def _front(folder: Path, port: int, upstream: int) -> list[str]:
    folder.mkdir()
    state = {"listen": f"127.0.0.1:{port}", "release": "bench", "target": f"127.0.0.1:{upstream}", "generation": 1}
    (folder / "gate.json").write_text(json.dumps(state))
    return [sys.executable, "-m", "holdfast.drivers.gates.front.server", str(folder)]


def _wrk(port: int, connections: int) -> tuple[float, float, float, int]:
    """Requests a second, the median and the 99th percentile in milliseconds, and errors."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{LOAD_SECONDS}s", "--latency", f"http://127.0.0.1:{port}/"],
        capture_output=True,
        text=True,
        timeout=LOAD_SECONDS + 30,
        check=True,
    ).stdout

    def milliseconds(label: str) -> float:
        found = re.search(rf"{label}\s+([\d.]+)(us|ms|s|m)\b", done)
        assert found is not None, done
        return float(found[1]) * _UNITS[found[2]]

    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    assert rate is not None, done
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done)
    errors = int(refused[1]) if refused else 0
    errors += sum(int(number) for number in broken.groups()) if broken else 0
    return float(rate[1]), milliseconds("50%"), milliseconds("99%"), errors


def _load(port: int) -> Load:
    many, one = _wrk(port, _MANY), _wrk(port, 1)
    return Load(many[0], many[2], one[1], many[3] + one[3])


def measure(folder: Path) -> dict[str, Load]:
    """Loads for `direct`, `nginx` and `front`."""
    ports = {"direct": free_port(), "nginx": free_port(), "front": free_port()}
    upstream = ports["direct"]
    commands = {
        "direct": _nginx(folder / "upstream", upstream, "default_type text/plain; return 200 'hello\\n';"),
        "nginx": _nginx(folder / "nginx", ports["nginx"], f"proxy_pass http://127.0.0.1:{upstream};"),
        "front": _front(folder / "front", ports["front"], upstream),
    }
    with ExitStack() as stack:
        for name, argv in commands.items():
            stack.enter_context(_running(argv, ports[name], folder / f"{name}.log"))
        return {name: _load(port) for name, port in ports.items()}
