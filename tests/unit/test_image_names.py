"""A name of an image that is given back while its engine is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.drivers.packages.image_names import ImageNames
from holdfast.errors import CommandFailedError

OLD, NEW = "sha256:0ld", "sha256:4e3"


class Engine:
    """Docker as its client shows it: `app:production` and its ids. Tagging fails the first times, by what is wrong."""

    def __init__(self, failures: int, *, away: bool, ids: tuple[str, ...] = (OLD, NEW)) -> None:
        self.name = NEW
        self.failures, self.away, self.ids = failures, away, ids

    def capture(self, argv: list[str], **_: Any) -> str:
        if "--quiet" in argv:
            if self.away:
                raise CommandFailedError("Cannot connect to the daemon", exit_code_of_command=1, output_tail="")
            return "\n".join(self.ids)
        return f"app:production {self.name}"

    def run(self, argv: list[str], *, check: bool, **_: Any) -> SimpleNamespace:
        self.failures -= 1
        if self.failures >= 0:
            return SimpleNamespace(exit_code=1)
        self.name = argv[2]
        return SimpleNamespace(exit_code=0)


def give_back(engine: Engine) -> str:
    ImageNames("docker", cast(Any, engine)).tag({"app:production": OLD})
    return engine.name


def test_an_engine_that_was_away_for_a_moment_is_told_again() -> None:
    assert give_back(Engine(1, away=False)) == OLD


def test_one_that_does_not_answer_fails_the_step() -> None:
    with pytest.raises(CommandFailedError):
        give_back(Engine(1, away=True))


def test_an_image_that_somebody_removed_stops_nothing() -> None:
    assert give_back(Engine(9, away=False, ids=(NEW,))) == NEW
