"""What a project's containers say about a service that there is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.drivers.runtimes.compose.project_containers import ProjectContainers
from holdfast.errors import StepError


def containers(file: Path, *services: str) -> ProjectContainers:
    """Return the containers of a project that has these services and runs none of them."""
    made = ProjectContainers.__new__(ProjectContainers)
    host = SimpleNamespace(capture=lambda argv: "")
    project = SimpleNamespace(name="shop", files=[file], command=["docker", "compose"])
    engine = SimpleNamespace(prepare=lambda: None, of_project=lambda *_: [])
    compose = SimpleNamespace(config_argv=list, model=lambda output: {"services": {name: {} for name in services}})
    made.__dict__.update(_host=host, _project=project, _engine=engine, _compose=compose, _folder=file.parent)
    return made


def test_a_service_that_the_files_do_not_have_is_named_with_those_that_they_have(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.touch()
    with pytest.raises(StepError, match=r"have no service `postgres`; they have: db, web") as wrong:
        containers(file, "web", "db").container_of("postgres")
    assert "up --detach" not in wrong.value.next_step
    with pytest.raises(StepError, match="has no container") as missing:
        containers(file, "web", "db").container_of("db")
    assert "up --detach db" in missing.value.next_step


def test_files_that_only_a_release_has_are_not_asked(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="has no container"):
        containers(tmp_path / "compose.yml").container_of("postgres")
