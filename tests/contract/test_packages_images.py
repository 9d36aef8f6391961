"""What is the images' own: built by a real engine, kept under tags of ours, and nothing of the project's touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.drivers.packages.images.driver import ImagePackages
from holdfast.drivers.packages.registry.client import RegistryClient
from holdfast.drivers.packages.registry.store import OciRegistry
from holdfast.errors import CommandFailedError
from holdfast.model.packages import Package
from holdfast.system.host import Host
from tests import containers
from tests.contract import projects
from tests.contract.test_packages import commit, git
from tests.servers import docker
from tests.servers.registry import PASSWORD, USER, RegistryServer

DOCKERFILE = f"FROM {docker.IMAGE}\nCOPY app.py /app/\n"


@dataclass
class Shop:
    packages: ImagePackages
    folder: Path
    name: str
    commits: dict[str, str]
    client: str

    def engine(self, *arguments: str) -> str:
        return containers.engine(*arguments, client=self.client)

    def id(self, name: str) -> str:
        return containers.id_of(name, client=self.client)


@pytest.fixture(params=["docker", pytest.param("podman", marks=pytest.mark.variant("podman"))])
def shop(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[Shop]:
    repository = quick_folder / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    name = f"contract-{quick_folder.name.lower().replace('_', '0')}"
    compose = json.dumps(
        {"services": {"web": {"build": ".", "image": f"{name}:production"}, "cache": {"image": docker.IMAGE}}}
    )
    commits = {}
    for version in ("one", "two"):
        files = {
            "app.py": f"print('{version}')\n",
            "compose.yml": compose,
            "Dockerfile": DOCKERFILE,
            "images.json": "[]",
        }
        commits[version] = commit(repository, files, version)
    broken = {"app.py": "", "compose.yml": compose, "Dockerfile": f"FROM {docker.IMAGE}\nCOPY nothing /app/\n"}
    commits["broken"] = commit(repository, broken, "broken")
    sources = ArchivePackages(quick_folder / "packages", repository, Host())
    with projects.images(quick_folder, sources, client=request.param) as packages:
        yield Shop(packages, quick_folder, name, commits, request.param)


def test_a_build_keeps_its_images_and_leaves_the_projects_own_names_alone(shop: Shop) -> None:
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    assert shop.id(f"{shop.name}:production") == "", "it had none before"
    shop.packages.unpack(one, shop.folder / "release", {})
    kept = json.loads((shop.folder / "release" / "images.json").read_text())
    assert kept.keys() == {"web", "cache"}
    for image in kept.values():
        assert shop.id(image["tag"]) == image["id"]
    shop.packages.tag(shop.packages.tags(shop.folder / "release"))
    assert shop.id(f"{shop.name}:production") == kept["web"]["id"]
    shop.packages.build(shop.commits["two"], "two", "run2")
    assert shop.id(f"{shop.name}:production") == kept["web"]["id"], "as before the second build"
    model = json.loads((shop.folder / "release" / "compose.json").read_text())
    assert model["name"] == shop.name
    assert model["services"]["web"]["build"]["context"] == str(shop.folder / "instance")


def test_files_of_one_size_and_one_second_are_not_taken_for_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two commits of a rebase have them: BuildKit goes by size and time."""
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-11-26T12:00:00Z")
    repository = shop.folder / "repository"
    files = {"compose.yml": (repository / "compose.yml").read_text(), "Dockerfile": DOCKERFILE}
    built = {}
    for version in ("v2", "v4"):
        made = shop.packages.build(
            commit(repository, {**files, "app.py": f"print('{version}')\n"}, version), version, version
        )
        shop.packages.unpack(made, shop.folder / version, {})
        built[version] = json.loads((shop.folder / version / "images.json").read_text())["web"]["id"]
    assert built["v2"] != built["v4"]


def test_a_build_that_fails_leaves_no_package(shop: Shop) -> None:
    with pytest.raises(CommandFailedError):
        shop.packages.build(shop.commits["broken"], "broken", "run1")
    shop.packages.abandon("run1")
    assert shop.packages.packages() == []
    assert shop.id(f"{shop.name}:production") == ""
    assert not list((shop.folder / "packages" / "tmp").iterdir())


def test_a_build_that_was_killed_gives_the_projects_names_back(shop: Shop) -> None:
    """As it stands after a kill between the build and the tags: what the names meant before was written down."""
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    shop.packages.unpack(one, shop.folder / "release", {})
    before = shop.packages.tags(shop.folder / "release")
    shop.packages.tag(before)
    work = shop.folder / "packages" / "tmp" / "run2-images"
    work.mkdir(parents=True)
    (work / "tags.json").write_text(json.dumps(before))
    shop.engine("tag", docker.IMAGE, f"{shop.name}:production")
    shop.packages.abandon("run2")
    shop.packages.abandon("run2")
    assert shop.packages.tagged(before) == before


def test_images_that_are_gone_are_built_again(shop: Shop) -> None:
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    shop.packages.unpack(one, shop.folder / "release", {})
    kept = json.loads((shop.folder / "release" / "images.json").read_text())
    shop.engine("rmi", kept["web"]["tag"])
    again = shop.packages.build(shop.commits["one"], "one", "run2")
    shop.packages.refresh(shop.folder / "release", again)  # Podman gives a new id to an image that is built anew
    kept = json.loads((shop.folder / "release" / "images.json").read_text())
    assert shop.id(kept["web"]["tag"]) == kept["web"]["id"]


def test_a_release_keeps_its_own_images_when_its_commit_is_built_otherwise(shop: Shop) -> None:
    """What runs is gone back to, whatever an environment file said since."""
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    release = shop.folder / "release"
    shop.packages.unpack(one, release, {})
    kept = json.loads((release / "images.json").read_text())
    file = shop.folder / "packages" / one.id / "images.json"
    shop.engine("tag", docker.IMAGE, f"{shop.name}:another")
    (shop.folder / "packages" / one.id / "images.recipe").write_text("of another environment")
    file.write_text(
        json.dumps({**kept, "web": {**kept["web"], "id": kept["cache"]["id"], "tag": kept["cache"]["tag"]}})
    )
    shop.packages.refresh(release, one)
    assert json.loads((release / "images.json").read_text()) == kept
    shop.packages.build(shop.commits["one"], "one", "run2")
    shop.packages.remove(one.id)
    assert [shop.id(image["tag"]) for image in kept.values()] == ["", ""], "the release's own went with the package"


def test_what_runs_is_kept_without_a_build(shop: Shop) -> None:
    id = shop.id(docker.IMAGE)
    package = shop.packages.keep(shop.commits["one"], "one", "run1", {"web": id})
    shop.packages.unpack(package, shop.folder / "release", {})
    kept = json.loads((shop.folder / "release" / "images.json").read_text())
    assert {service: image["id"] for service, image in kept.items()} == {"web": id, "cache": id}, "not only what runs"
    assert {service: image["built"] for service, image in kept.items()} == {"web": True, "cache": False}


def test_remove_takes_the_tags_along(shop: Shop) -> None:
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    shop.packages.unpack(one, shop.folder / "release", {})
    kept = json.loads((shop.folder / "release" / "images.json").read_text())
    shop.packages.remove(one.id)
    shop.packages.remove(one.id)
    assert [shop.id(image["tag"]) for image in kept.values()] == ["", ""]
    assert shop.packages.packages() == []
    assert shop.id(docker.IMAGE), "another tag has that one"


def test_another_name_or_argument_from_the_environment_is_another_image(shop: Shop) -> None:
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    shop.packages.unpack(one, shop.folder / "release", {})
    first = shop.packages.tags(shop.folder / "release")
    shop.engine("tag", docker.IMAGE, f"{shop.name}:other")
    recipe = shop.folder / "packages" / one.id / "images.recipe"
    recipe.write_text("of another environment")
    shop.packages.build(shop.commits["one"], "one", "run2")
    assert recipe.read_text() != "of another environment"
    assert shop.packages.tags(shop.folder / "release") == first


def test_an_image_that_two_packages_share_goes_with_the_last(shop: Shop) -> None:
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    two = shop.packages.build(shop.commits["two"], "two", "run2")
    shop.packages.unpack(two, shop.folder / "release", {})
    kept = json.loads((shop.folder / "release" / "images.json").read_text())
    shop.packages.remove(one.id)
    assert all(shop.id(image["tag"]) == image["id"] for image in kept.values())


def test_names_that_were_built_or_pulled_since_are_told(shop: Shop) -> None:
    one = shop.packages.build(shop.commits["one"], "one", "run1")
    release = shop.folder / "release"
    shop.packages.unpack(one, release, {})
    shop.packages.tag(shop.packages.tags(release))
    assert shop.packages.moved(release) == []
    shop.engine("tag", docker.IMAGE, f"{shop.name}:production")
    assert shop.packages.moved(release) == [f"{shop.name}:production"]
    shop.engine("rmi", f"{shop.name}:production")
    assert shop.packages.moved(release) == [], "a name that means nothing is no newer image"


def test_images_go_to_a_registry_and_come_back_to_another_environment(shop: Shop) -> None:
    """With a login, which is in no argument: the engine reads it from a file that only its owner may read."""
    server = RegistryServer(login="basic")
    try:
        (shop.folder / "secret").write_text(f"{PASSWORD}\n")
        host = Host()
        said: list[str] = []
        host.announce = said.append
        client = RegistryClient("http", server.address, host, user=USER, password=f"file:{shop.folder}/secret")
        registry = OciRegistry(client, "shop/packages")
        one = shop.packages.build(shop.commits["one"], "one", "run1")
        (shop.folder / "login").mkdir(mode=0o700)
        login = registry.engine_login(shop.folder / "login")
        assert (shop.folder / "login" / "config.json").stat().st_mode & 0o077 == 0
        pushed = shop.packages.push_images(one, login)
        assert pushed.keys() == {"web", "cache"} and pushed["web"].built and not pushed["cache"].built
        for service, image in pushed.items():
            assert image.reference.startswith(f"{server.address}/shop/packages/{service}@sha256:")
        assert not [name for name in _names(shop) if server.address in name], "no name of the registry is left"
        assert PASSWORD not in " ".join(said)

        before = _kept(shop, one)
        record = Path(one.path) / "images.json"
        record.unlink()
        assert shop.packages.packages() == [], "as on a machine that has only received the archive"
        for image in before.values():
            if image["name"] != docker.IMAGE:
                shop.engine("rmi", "--force", image["tag"])
        shop.packages.pull_images(one, pushed, login, "run2")
        assert shop.packages.packages() == [one]
        after = _kept(shop, one)
        assert {name: image["id"] for name, image in after.items()} == {
            name: image["id"] for name, image in before.items()
        }
        for image in after.values():
            assert shop.id(image["tag"]) == image["id"]
        assert not [name for name in _names(shop) if server.address in name]
        shop.packages.pull_images(one, pushed, login, "run3")
        registry.close()
    finally:
        server.remove()


def _names(shop: Shop) -> list[str]:
    return shop.engine("image", "ls", "--all", "--format={{.Repository}}:{{.Tag}}").split()


def _kept(shop: Shop, package: Package) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((Path(package.path) / "images.json").read_text())
    return found
