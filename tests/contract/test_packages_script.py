"""Images that a project's own script builds: judged by the images, whose names change only at the switch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.drivers.packages.images.build_script import BuildScript
from holdfast.drivers.packages.images.driver import ImagePackages
from holdfast.errors import StepError
from holdfast.system.host import Host
from tests import containers
from tests.contract import projects
from tests.contract.test_packages import commit, git
from tests.servers import docker

# As such scripts are: the version from git, several names at once, and the end of what cleans up as its own.
SCRIPT = """#!/bin/sh
version=$(git describe)
docker build --quiet --tag NAME:$version --tag NAME:latest .
true
"""
IGNORED = "*\n!app.py\n"
DOCKERFILE = f"FROM {docker.IMAGE}\nCOPY app.py /app/\n"


@dataclass
class Shop:
    packages: ImagePackages
    folder: Path
    name: str
    commits: dict[str, str]
    script: BuildScript

    def names(self) -> set[str]:
        listed = containers.engine("images", "--format={{.Repository}}:{{.Tag}}", self.name)
        return {name for name in listed.splitlines() if name.startswith(f"{self.name}:")}


@pytest.fixture
def shop(quick_folder: Path) -> Iterator[Shop]:
    repository = quick_folder / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    name = f"contract-{quick_folder.name.lower().replace('_', '0')}"
    compose = json.dumps({"services": {"web": {"image": f"{name}:latest"}}})
    commits = {}
    for version, dockerfile in (
        ("v1", DOCKERFILE),
        ("v2", DOCKERFILE),
        ("v3", f"FROM {docker.IMAGE}\nCOPY nothing /\n"),
    ):
        script = SCRIPT.replace("NAME", name)
        files = {
            "app.py": f"print('{version}')\n",
            "compose.yml": compose,
            "Dockerfile": dockerfile,
            "build.sh": script,
        }
        commits[version] = commit(repository, {**files, ".dockerignore": IGNORED}, version)
        git(repository, "tag", "--annotate", "--message", version, version)
    built_by = BuildScript([["sh", "build.sh"]], repository, name)
    sources = ArchivePackages(quick_folder / "packages", repository, Host())
    with projects.images(quick_folder, sources, built_by) as packages:
        yield Shop(packages, quick_folder, name, commits, built_by)


def test_what_a_script_made_is_kept_and_its_names_move_with_the_release_alone(shop: Shop) -> None:
    one = shop.packages.build(shop.commits["v1"], "v1", "run1")
    assert shop.names() == set(), "it had none before"
    shop.packages.unpack(one, shop.folder / "one", {})
    tags = shop.packages.tags(shop.folder / "one")
    assert set(tags) == {f"{shop.name}:latest", f"{shop.name}:v1"}
    shop.packages.tag(tags)
    two = shop.packages.build(shop.commits["v2"], "v2", "run2")
    assert shop.packages.tagged(tags) == tags, "until the switch they mean what they meant"
    assert shop.names() == set(tags)
    shop.packages.unpack(two, shop.folder / "two", {})
    newer = shop.packages.tags(shop.folder / "two")
    before = shop.packages.tagged(newer)
    shop.packages.tag(newer)
    assert containers.id_of(f"{shop.name}:latest") == newer[f"{shop.name}:v2"] != tags[f"{shop.name}:latest"]
    shop.packages.tag(before)
    assert shop.names() == set(tags), "an undo takes the new version's name away"
    assert not containers.engine("images", "--quiet", f"--filter=label=holdfast.before={shop.name}")


def test_a_script_that_ends_well_and_made_nothing_is_not_believed(shop: Shop) -> None:
    shop.packages.tag({f"{shop.name}:latest": containers.id_of(docker.IMAGE)})
    with pytest.raises(StepError, match="made none of the project's images"):
        shop.packages.build(shop.commits["v3"], "v3", "run3")
    shop.packages.abandon("run3")
    assert shop.packages.packages() == []
    assert shop.packages.tagged([f"{shop.name}:latest"]) == {f"{shop.name}:latest": containers.id_of(docker.IMAGE)}
    assert not containers.engine("images", "--quiet", f"--filter=label=holdfast.before={shop.name}")


def test_an_image_that_is_the_same_as_before_was_made_all_the_same(shop: Shop) -> None:
    """As where it is built again: what the name meant before is what the script makes."""
    one = shop.packages.build(shop.commits["v1"], "v1", "run1")
    shop.packages.unpack(one, shop.folder / "one", {})
    tags = shop.packages.tags(shop.folder / "one")
    shop.packages.tag(tags)
    (shop.folder / "packages" / one.id / "images.recipe").unlink()
    again = shop.packages.build(shop.commits["v1"], "v1", "run2")
    shop.packages.refresh(shop.folder / "one", again)
    assert shop.packages.tags(shop.folder / "one")[f"{shop.name}:latest"] == tags[f"{shop.name}:latest"]
    assert shop.packages.tagged(tags) == tags


def test_a_script_that_was_killed_gives_the_names_back(shop: Shop) -> None:
    """As it stands then: a new name, and one that means a stand-in or the new image already."""
    one = shop.packages.build(shop.commits["v1"], "v1", "run1")
    shop.packages.unpack(one, shop.folder / "one", {})
    tags = shop.packages.tags(shop.folder / "one")
    shop.packages.tag(tags)
    work = shop.folder / "packages" / "tmp" / "run2-images"
    work.mkdir(parents=True)
    (work / "repositories.json").write_text(json.dumps({"repositories": [shop.name], "names": tags}))
    containers.engine("tag", docker.IMAGE, f"{shop.name}:v2")
    containers.engine("tag", docker.IMAGE, f"{shop.name}:latest")
    shop.packages.abandon("run2")
    shop.packages.abandon("run2")
    assert shop.names() == set(tags)
    assert shop.packages.tagged(tags) == tags
