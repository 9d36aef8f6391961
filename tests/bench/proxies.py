"""The front beside nginx and Caddy: all relay to one tiny upstream, under the same bounded load, on loopback."""

from __future__ import annotations

import contextlib
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

LOAD_SECONDS = 5
_MANY = 16
_UPLOAD_MB = 600
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second with many connections, and milliseconds with one."""

    requests: float
    p99_ms: float
    alone_ms: float
    errors: int


@dataclass(frozen=True)
class Cost:
    """What a proxy's processes took to start, and their memory then and after the load and one large upload."""

    start_seconds: float
    idle_mb: float
    peak_mb: float


def missing() -> list[str]:
    return [program for program in ("nginx", "wrk") if shutil.which(program) is None]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _running(argv: list[str], port: int, log: Path) -> Iterator[int]:
    """A server for as long as the block runs, and its process; only this process is ended."""
    environment = {**os.environ, "HOME": str(log.parent)}
    with open(log, "ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
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
        yield process.pid
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
        f"http {{ access_log off; client_max_body_size 0; {temporary}\n"
        f"  server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }} }}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def _caddy(folder: Path, port: int, upstream: int) -> list[str]:
    folder.mkdir()
    (folder / "Caddyfile").write_text(
        f"{{\n admin off\n auto_https off\n}}\nhttp://:{port} {{\n bind 127.0.0.1\n"
        f" reverse_proxy 127.0.0.1:{upstream} {{\n transport http {{\n keepalive off\n }}\n }}\n}}\n"
    )
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


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


def _processes(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def _processor_seconds(pid: int) -> float:
    ticks = 0
    for each in _processes(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int, field: str) -> float:
    found = 0
    for each in _processes(pid):
        line = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{each}/status").read_text())
        found += int(line[1]) if line is not None else 0
    return found / 1024


@contextmanager
def _sink() -> Iterator[int]:
    """Take uploads, one after the other, and give the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = server.accept()
                with connection:
                    left = _UPLOAD_MB << 20
                    data = connection.recv(1 << 20)
                    left -= len(data.partition(b"\r\n\r\n")[2])
                    while left > 0 and (data := connection.recv(1 << 20)):
                        left -= len(data)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    with server:
        yield int(server.getsockname()[1])


def _upload(port: int) -> None:
    """Send a large body, and wait for the answer."""
    block = bytes(1 << 20)
    with socket.create_connection(("127.0.0.1", port), timeout=120) as visitor:
        visitor.sendall(b"PUT /upload HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % (_UPLOAD_MB << 20))
        for _ in range(_UPLOAD_MB):
            visitor.sendall(block)
        assert visitor.recv(12) == b"HTTP/1.1 200"


def measure(folder: Path) -> tuple[dict[str, Load], dict[str, Cost]]:
    """Return loads and costs for `nginx`, `front` and, where it is installed, `caddy`; and the load for `direct`."""
    names = ["direct", "nginx", "front", *(["caddy"] if shutil.which("caddy") else [])]
    ports = {name: free_port() for name in names}
    upstream = ports["direct"]
    commands = {
        "nginx": _nginx(
            folder / "nginx", ports["nginx"], f"proxy_request_buffering off; proxy_pass http://127.0.0.1:{upstream};"
        ),
        "front": _front(folder / "front", ports["front"], upstream),
        "caddy": _caddy(folder / "caddy", ports["caddy"], upstream) if "caddy" in ports else [],
    }
    loads, costs = {}, {}
    with ExitStack() as stack:
        sink = stack.enter_context(_sink())
        hello = (
            "default_type text/plain; return 200 'hello\\n'; }"
            f" location /upload {{ proxy_request_buffering off; proxy_pass http://127.0.0.1:{sink};"
        )
        web = _nginx(folder / "upstream", upstream, hello)
        stack.enter_context(_running(web, upstream, folder / "direct.log"))
        loads["direct"] = _load(upstream)
        for name in names[1:]:
            with _running(commands[name], ports[name], folder / f"{name}.log") as pid:
                time.sleep(1)  # it may still be at work
                started, idle = _processor_seconds(pid), _memory_mb(pid, "VmRSS")
                loads[name] = _load(ports[name])
                _upload(ports[name])
                costs[name] = Cost(started, idle, _memory_mb(pid, "VmHWM"))
    return loads, costs
