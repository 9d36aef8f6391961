"""The output of a command, passed on piece by piece while it runs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

from holdfast.errors import CancelledError
from holdfast.system import fault_points, pipes
from holdfast.system.host import TAIL_BYTES, Host, name_of
from holdfast.system.keeper_client import end_session


def pour(
    host: Host,
    argv: Sequence[str],
    sink: Callable[[bytes], None],
    *,
    environment: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Run one command and pass on its output piece by piece; its errors are kept for messages.

    Raise CommandFailedError, CancelledError (also once `stopped`), and what `sink` raises; the command has ended then.
    """
    shown = host.begun(argv, "/")
    started = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = host.start_pipes(argv, environment=environment, errors=errors)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            begun = False
            for chunk in pipes.read_pieces(process.stdout.fileno()):
                host.check_cancelled()
                if stopped():
                    raise CancelledError("stopped a command that is no longer needed")
                if chunk and not begun:
                    begun = True
                    fault_points.reach(f"during {name_of(argv)}")
                if chunk:
                    sink(chunk)
            process.wait()
        except BaseException:
            end_session(process)
            raise
        finally:
            process.stdout.close()
        tail = host.redactor.text(os.pread(errors.fileno(), TAIL_BYTES, 0).decode(errors="replace"))
    host.ended(shown, process.wait(), time.monotonic() - started, tail)
