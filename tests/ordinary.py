"""What an ordinary user may do: root may do more, and would not notice."""

from __future__ import annotations

import codecs
import os
import traceback
from collections.abc import Callable

_NOBODY = 65534


def as_ordinary_user(action: Callable[[], None]) -> None:
    """Run an action here, or, where the tests run as root, in a forked child that is another user."""
    if os.geteuid() != 0:
        action()
        return
    codecs.lookup("ascii")  # the folder of this Python may be closed to the other user
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
