"""Podman as it is after a removal that was killed: rare enough that no test of the real one can wait for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.containers import docker
from holdfast.containers.podman import PodmanEngine
from holdfast.errors import CommandFailedError, StepError
from holdfast.system.host import Host

PODMAN = """#!/usr/bin/env python3
import json, pathlib, sys
place = pathlib.Path(__file__).parent
states = json.loads((place / "states").read_text())
arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--") or "=" in argument]
given = [argument for argument in arguments if argument in states]
if arguments[0] == "ps":
    wanted = [argument.rpartition("=")[2] for argument in arguments if "status=" in argument]
    print(*(id for id, state in states.items() if not wanted or state in wanted), sep="\\n")
elif arguments[:2] == ["container", "inspect"]:
    if len(given) < len(arguments) - 2 or any(states[id] == "removing" for id in given):
        sys.exit(125)
    print(json.dumps([{"Id": id, "Image": "1", "State": {"Status": states[id]}} for id in given]))
elif arguments[0] == "stop" and states[given[0]] == "removing":
    sys.exit(125)
elif arguments[0] == "rm":
    (place / "states").write_text(json.dumps({id: state for id, state in states.items() if id not in given}))
"""


@pytest.fixture
def podman(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PodmanEngine:
    program = folder / "podman"
    program.write_text(PODMAN)
    program.chmod(0o755)
    monkeypatch.setattr("holdfast.containers.docker._REMOVAL_SECONDS", 0.5)
    return PodmanEngine(str(program), Host())


def have(folder: Path, **states: str) -> None:
    (folder / "states").write_text(json.dumps(states))


def ids(found: Sequence[dict[str, Any]]) -> list[str]:
    return [item["Id"] for item in found]


def test_one_that_is_half_removed_is_removed_and_the_others_are_told(podman: PodmanEngine, folder: Path) -> None:
    have(folder, a="running", b="removing", c="exited")
    assert ids(podman.inspected(["a", "b", "c", "gone"])) == ["a", "c"]
    assert json.loads((folder / "states").read_text()) == {"a": "running", "c": "exited"}


def test_those_that_nobody_asked_for_are_left_alone(podman: PodmanEngine, folder: Path) -> None:
    have(folder, a="running", of_somebody_else="removing")
    assert ids(podman.inspected(["a", "gone"])) == ["a"]
    assert "of_somebody_else" in json.loads((folder / "states").read_text())


def test_one_whose_removal_began_meanwhile_is_not_stopped_for_ever(podman: PodmanEngine, folder: Path) -> None:
    have(folder, a="removing")
    known = {"Id": "a", "Config": {"StopTimeout": 0}, "State": {"Status": "running"}, "HostConfig": {}}
    podman.remove(known)
    assert json.loads((folder / "states").read_text()) == {}


def test_what_cannot_be_inspected_for_another_reason_is_an_error(podman: PodmanEngine, folder: Path) -> None:
    have(folder, a="running")
    (folder / "podman").write_text(
        PODMAN.replace('["container", "inspect"]:', '["container", "inspect"]:\n    sys.exit(125)')
    )
    with pytest.raises(CommandFailedError):
        podman.inspected(["a"])


def test_an_engine_that_is_not_installed_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_LOOK_SECONDS", None)  # a wait would fail
    engine = PodmanEngine(str(folder / "no-podman"), Host())
    with pytest.raises(StepError, match="does not answer") as raised:
        engine.wait_available()
    assert not raised.value.may_pass
