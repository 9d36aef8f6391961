"""References to secrets in the configuration, and the values behind them.

`env:NAME`, `file:PATH` and `command:ARGV` are kept elsewhere; `secret:NAME` is one that Holdfast keeps itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.errors import CommandFailedError, HoldfastError

_KINDS = ("env:", "file:", "command:", "secret:")
STORED = "secret:"


def is_secret(value: str) -> bool:
    """Return whether a value is a reference to a secret."""
    return value.startswith(_KINDS)


def resolve(reference: str, run: Callable[[Sequence[str]], str], stored: Callable[[str], str]) -> str:
    """Return the value of a reference.

    `run` returns what the command of `command:ARGV` prints, `stored` the value of `secret:NAME`.

    Raise HoldfastError naming the reference, never the value.
    """
    kind, _, rest = reference.partition(":")
    try:
        if kind == "env":
            value = os.environ[rest]
        elif kind == "file":
            value = Path(rest).read_text().rstrip("\n")
        elif kind == "command":
            value = run(rest.split()).rstrip("\n")
        elif kind == "secret":
            value = stored(rest)
        else:
            raise HoldfastError(f"secret reference {reference!r} must begin with env:, file:, command: or secret:")
    except KeyError:
        raise HoldfastError(f"secret {reference}: the environment has no such variable") from None
    except (OSError, CommandFailedError) as error:
        raise HoldfastError(f"secret {reference}: {error}") from None
    except UnicodeDecodeError:
        raise HoldfastError(f"secret {reference}: it is not UTF-8") from None
    try:
        value.encode()
    except UnicodeEncodeError:
        raise HoldfastError(f"secret {reference}: it is not UTF-8") from None
    return value
