"""Packages of containers: images through a registry to another environment, and patches that build them again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests import containers, kept
from tests.e2e.cli import run, run_json, succeed
from tests.e2e.test_packages import share
from tests.e2e.test_patches import fix, version
from tests.servers import registry as servers
from tests.site import Site

pytestmark = pytest.mark.combination


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site("compose") as found:
        yield found


def test_images_are_deployed_from_a_registry_without_a_build(site: Site) -> None:
    server = servers.shared()
    share(site, server, server.repository())
    succeed(site, "package", "build", "v2", "sale")
    package = site.state / "packages" / "sale"
    images = json.loads((package / "images.json").read_text())
    shutil.rmtree(package)
    for image in images.values():
        containers.engine("rmi", "--force", image["tag"])
    steps = [step["name"] for step in run_json(site, "package", "deploy", "sale", "--dry-run")["data"]["steps"]]
    assert "package.fetch" in steps and "package.build" not in steps
    done = run(site, "package", "deploy", "sale", "-v")
    assert done.returncode == 0, done.stderr
    assert version(site) == "v2"
    assert "compose build" not in done.stderr and " pull " in done.stderr
    running = json.loads((site.app_folder / "current" / "images.json").read_text())
    assert {name: image["id"] for name, image in running.items()} == {
        name: image["id"] for name, image in images.items()
    }


def test_a_patch_builds_the_images_again_and_a_revert_takes_the_earlier_ones(site: Site) -> None:
    before = json.loads((site.app_folder / "current" / "images.json").read_text())
    done = run(site, "patch", "apply", str(fix(site)), "--force")
    assert done.returncode == 0, done.stderr
    assert version(site) == "fixed"
    done = run(site, "patch", "revert", "fixed.patch", "--force")
    assert done.returncode == 0, done.stderr
    assert version(site) == "v1"
    assert json.loads((site.app_folder / "current" / "images.json").read_text()) == before
