"""A name of an image that is given back while its engine is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.containers.engines import engine_named
from holdfast.drivers.packages.images.names import ImageNames
from holdfast.errors import CommandFailedError

OLD, NEW = "sha256:0ld", "sha256:4e3"


class Engine:
    """A Docker client with `app:production` and its ids. Names change only after a number of failures."""

    def __init__(self, failures: int, *, away: bool, ids: tuple[str, ...] = (OLD, NEW)) -> None:
        self.name = NEW
        self.failures, self.away, self.ids = failures, away, ids

    def capture(self, argv: list[str], **_: Any) -> str:
        if "--quiet" in argv:
            if self.away:
                raise CommandFailedError("Cannot connect to the daemon", exit_code_of_command=1, output_tail="")
            return "\n".join(self.ids)
        return f"app:production {self.name}" if self.name else ""

    def run(self, argv: list[str], *, check: bool, **_: Any) -> SimpleNamespace:
        self.failures -= 1
        if self.failures >= 0:
            if check:
                raise CommandFailedError("It fails", exit_code_of_command=1, output_tail="")
            return SimpleNamespace(exit_code=1, output_tail="It fails")
        self.name = argv[2] if argv[1] == "tag" else ""
        return SimpleNamespace(exit_code=0, output_tail="")


def give_back(engine: Engine, id: str) -> str:
    ImageNames(engine_named("podman", cast(Any, engine)), cast(Any, engine)).tag({"app:production": id})
    return engine.name


@pytest.mark.parametrize("id", [OLD, ""], ids=["given", "taken away"])
def test_an_engine_that_was_away_for_a_moment_is_told_again(id: str) -> None:
    assert give_back(Engine(1, away=False), id) == id


@pytest.mark.parametrize("id", [OLD, ""], ids=["given", "taken away"])
def test_one_that_does_not_answer_fails_the_step(id: str) -> None:
    with pytest.raises(CommandFailedError, match="Cannot connect"):
        give_back(Engine(1, away=True), id)


def test_an_image_that_somebody_removed_stops_nothing() -> None:
    assert give_back(Engine(9, away=False, ids=(NEW,)), OLD) == NEW


def test_a_name_that_a_container_needs_stops_nothing() -> None:
    assert give_back(Engine(9, away=False), "") == NEW


def test_an_engine_that_answers_and_refuses_fails_the_step() -> None:
    with pytest.raises(CommandFailedError, match="It fails"):
        give_back(Engine(9, away=False), OLD)
