"""The tree of errors. Each class has one of the exit codes in EXIT_CODES; scripts may rely on them.

HoldfastError
├── UsageError
├── ConfigurationError              lists every problem
├── RefusedError
│   ├── AlreadyThereError           a success on the command line
│   ├── NotFoundError
│   ├── NoSpaceError
│   ├── DamagedBackupError
│   ├── DamagedPackageError
│   ├── OwnerMismatchError
│   └── RegistryError               a registry of packages does not do what it was asked for
├── BusyError                       names the holder
├── OperationFailedError
│   └── DegradedError
├── StuckError
├── InterruptedOperationError
├── DamagedError
├── CancelledError
└── StepError                       a step failed; the runner turns it into one of the above
    ├── CommandFailedError
    ├── CommandTimeoutError
    └── PortTakenError
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

EXIT_CODES = {
    0: "done, or there was nothing to do",
    1: "unexpected error",
    2: "the command line is wrong: an unknown command or option, or a value that cannot be meant",
    3: "holdfast.toml is wrong; every problem is listed",
    4: "refused, nothing was changed: a check failed, or something that was named does not exist or is not unique",
    5: "another operation runs",
    6: "failed and undone: the state before it is back",
    7: "stuck: the undo failed too, an operator is needed",
    8: "an operation was interrupted, or its closing steps are left; run `holdfast recover`",
    9: "a backup, a package, the vault or the journal is damaged",
    10: "failed; the old version serves, but compatible migrations stay",
    130: "stopped on request (Ctrl-C, SIGTERM, or the answer no); everything that had begun is undone",
}


class HoldfastError(Exception):
    """An error that says what failed, what the present state is, and what to run next."""

    exit_code = 1
    default_state = ""
    may_pass = True
    """Whether the same may succeed a while later with nobody's help; if not, nothing waits for it."""

    def __init__(self, what: str, *, state: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.state = state or self.default_state
        self.next_step = next_step
        self.undone_by: Mapping[str, str] = {}
        """How a failed upgrade was undone: `strategy` and `because`; empty for every other error."""

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.state, self.next_step) if part)


class UsageError(HoldfastError):
    exit_code = 2
    default_state = "Nothing was changed."


class ConfigurationError(HoldfastError):
    """An error with all problems of a configuration at once, each as `key path: message`."""

    exit_code = 3
    default_state = "Nothing was changed."

    def __init__(self, what: str, problems: Sequence[str] = (), *, state: str = "", next_step: str = "") -> None:
        super().__init__(what, state=state, next_step=next_step)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [self.what, *(f"  {problem}" for problem in self.problems), self.state, self.next_step]
        return "\n".join(line for line in lines if line)


class RefusedError(HoldfastError):
    exit_code = 4
    default_state = "Nothing was changed."


class AlreadyThereError(RefusedError):
    """A request that is already fulfilled; not a failure, so that a script may ask every night."""

    exit_code = 0


class NotFoundError(RefusedError):
    pass


class NoSpaceError(RefusedError):
    pass


class DamagedBackupError(RefusedError):
    """A refusal of an operation that had begun, because of a damaged backup."""

    exit_code = 9


class DamagedPackageError(RefusedError):
    """A refusal of an operation that had begun, because of a package that is not what was announced."""

    exit_code = 9


class OwnerMismatchError(RefusedError):
    pass


class RegistryError(RefusedError):
    """A registry that does not answer, or answers with an error; `status` is that of its answer, 0 without one."""

    status = 0


class BusyError(HoldfastError):
    exit_code = 5
    default_state = "Nothing was changed."


class OperationFailedError(HoldfastError):
    exit_code = 6


class DegradedError(OperationFailedError):
    exit_code = 10


class StuckError(HoldfastError):
    exit_code = 7


class InterruptedOperationError(HoldfastError):
    exit_code = 8
    default_state = "Nothing was changed by this command."


class DamagedError(HoldfastError):
    exit_code = 9


class CancelledError(HoldfastError):
    exit_code = 130


class StepError(HoldfastError):
    pass


class CommandFailedError(StepError):
    def __init__(self, what: str, *, exit_code_of_command: int, output_tail: str = "") -> None:
        super().__init__(what, state=output_tail)
        self.exit_code_of_command = exit_code_of_command
        self.output_tail = output_tail


class CommandTimeoutError(StepError):
    pass


class PortTakenError(StepError):
    """A port of a service on which another process listens."""


def lacks_space(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, says that a disk is full."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoSpaceError) or (isinstance(cause, OSError) and cause.errno == errno.ENOSPC):
            return True
        cause = cause.__cause__
    return False
