"""The output of a running command, passed on piece by piece until the command ends."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from typing import IO

from holdfast.system import pipes
from holdfast.system.keeper_client import Kept, Process, end_session


def follow(process: Process, pipe: IO[bytes], receive: Callable[[bytes], None], check: Callable[[], None]) -> None:
    """Pass on what a process writes until it ends; end its session if `check` raises.

    A descendant that keeps the pipe open does not delay the end. Raise what `check` raises.
    """
    os.set_blocking(pipe.fileno(), False)
    ended = process.sentinel() if isinstance(process, Kept) else os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while process.poll() is None:
                for key, _ in selector.select(0.1):
                    if key.fileobj is pipe and not pipes.read_available(pipe, receive):
                        selector.unregister(pipe)
                try:
                    check()
                except BaseException:
                    end_session(process)
                    raise
            pipes.read_available(pipe, receive)
    finally:
        os.close(ended)
        pipe.close()
