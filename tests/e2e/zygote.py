"""The command line in a process forked from one that has it imported: imports are nine tenths of a command's work.

The child is a process of its own with the environment, the folder and the streams that it is given. What depends on a
real start (the interpreter, `python -m holdfast`, signals to a process that is just starting) is tested on one.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

_LONGEST_ORDER = 1 << 20


class Zygote:
    """Starts commands, one at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.zygote"], stdin=other, cwd=Path(__file__).parent.parent.parent
            )

    def run(self, argv: list[str], timeout: float, stdin: IO[bytes] | int) -> subprocess.CompletedProcess[str]:
        """Run a command of Holdfast's; call it with the lock held. Raises subprocess.TimeoutExpired."""
        with contextlib.ExitStack() as streams:
            given = streams.enter_context(open(os.devnull, "rb")) if stdin == subprocess.DEVNULL else stdin
            assert not isinstance(given, int)
            output = [streams.enter_context(os.fdopen(os.memfd_create("output"), "r+b")) for _ in range(2)]
            order = {"argv": argv, "folder": os.getcwd(), "environment": dict(os.environ)}
            handles = [given.fileno(), *(stream.fileno() for stream in output)]
            self._socket.settimeout(timeout)
            socket.send_fds(self._socket, [json.dumps(order).encode()], handles)
            try:
                pid = int(self._socket.recv(64))
                try:
                    code = int(self._socket.recv(64))
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    self._socket.settimeout(None)
                    self._socket.recv(64)
                    raise
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(argv, timeout) from error
            for stream in output:
                stream.seek(0)
            out, err = (stream.read().decode() for stream in output)
        return subprocess.CompletedProcess(argv, code, out, err)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(30)


def _import_everything() -> None:
    """Import what any command may import later, but the programs that are started as such."""
    import holdfast

    programs = ("holdfast.__main__", "holdfast.demo.application", "holdfast.drivers.gates.front.server")
    for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
        if not module.name.startswith(programs):
            importlib.import_module(module.name)


def serve() -> None:
    """Fork a child for each order; the child returns from here and becomes the command."""
    from holdfast.cli.main import main

    _import_everything()
    gc.freeze()  # a child's collections would copy every page of what is imported
    orders = socket.socket(fileno=0)
    while True:
        text, handles, _, _ = socket.recv_fds(orders, _LONGEST_ORDER, 3)
        if not text:
            return
        child = os.fork()
        if child == 0:
            _become(json.loads(text), handles, orders)
            _end(main)
        orders.send(str(child).encode())
        for handle in handles:
            os.close(handle)
        _, status = os.waitpid(child, 0)
        orders.send(str(os.waitstatus_to_exitcode(status)).encode())


def _end(main: Callable[[], object]) -> NoReturn:
    """Run the command and end as an interpreter does, but without taking down all that is imported."""
    code = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _become(order: dict[str, object], handles: list[int], orders: socket.socket) -> None:
    orders.detach()
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(str(order["folder"]))
    environment, argv = order["environment"], order["argv"]
    assert isinstance(environment, dict) and isinstance(argv, list)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["holdfast", *argv]


if __name__ == "__main__":
    serve()
