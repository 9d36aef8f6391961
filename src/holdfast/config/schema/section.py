"""What all tables of holdfast.toml have in common.

The modules of this package do without `from __future__ import annotations`: as texts, the annotations of all sections
would be compiled one by one when a configuration is read, which takes longer than everything else about it.
"""

import re
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration


Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_-]{0,40}$",
        extra={"expected": "at most 41 lower-case letters, digits, - and _, a letter first"},
    ),
]
SecretReference = Annotated[
    str,
    Meta(
        pattern=r"^((env|file|command|secret):.+)?$",
        extra={"expected": "env:NAME, file:PATH, command:ARGV or secret:NAME"},
    ),
]
"""Where a secret is; it is never in holdfast.toml itself."""
Argv = Annotated[list[str], Meta(min_length=1)]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(duration: str) -> int | None:
    """Return the seconds of a duration such as `90s`, `24h` or `1d2h30m`; None if the text is not one."""
    found = re.fullmatch(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", duration, re.ASCII)
    if found is None or not duration:
        return None
    return sum(int(number) * _SECONDS[unit] for number, unit in zip(found.groups(), "dhms", strict=True) if number)


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of holdfast.toml."""

    def problems(self) -> list[str]:
        """Return problems that several keys of this section show together, each as `key: problem`."""
        return []

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        """Return problems that this section shows together with other sections, each as `key: problem`.

        `name` is what the operator named this section, such as `main` in `[databases.main]`, or else empty.
        """
        return []
