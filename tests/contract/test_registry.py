"""What a registry of packages promises, on a real one on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.drivers.packages.registry.client import RegistryClient
from holdfast.drivers.packages.registry.manifests import Manifest
from holdfast.drivers.packages.registry.store import OciRegistry
from holdfast.errors import ConfigurationError, DamagedError, HoldfastError, NotFoundError, RefusedError, RegistryError
from holdfast.model.packages import AppliedPatch, EnvironmentUse, Package
from holdfast.system.host import Host
from tests.proof import patience
from tests.servers import registry as servers
from tests.servers.registry import PASSWORD, USER, RegistryServer


def opened(
    server: RegistryServer,
    repository: str,
    *,
    port: int | None = None,
    user: str = "",
    password: str = "",
    authority: Path | None = None,
) -> OciRegistry:
    client = RegistryClient(
        server.scheme,
        f"127.0.0.1:{port}" if port else server.address,
        Host(),
        user=user,
        password=password,
        authority=authority,
        timeout_seconds=patience.limit(5),
    )
    made = OciRegistry(client, repository)
    _opened.append(made)
    return made


_opened: list[OciRegistry] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def silent(done: int, total: int | None, unit: str) -> None:
    """Report no progress."""


def made(folder: Path, id: str = "v1", content: bytes = b"the archive of v1", **facts: object) -> Package:
    place = folder / id
    place.mkdir(exist_ok=True)
    (place / "package.tar.zst").write_bytes(content)
    package = Package(
        id=id,
        label="v1",
        commit="c" * 40,
        digest=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        built_at="2026-12-01T10:00:00Z",
        path=str(place),
        content="d" * 64,
        note="Reference: v1",
        recipe="12345678",
    )
    return replace(package, **facts)


@pytest.fixture
def server() -> RegistryServer:
    return servers.shared()


@pytest.fixture
def store(server: RegistryServer) -> OciRegistry:
    return opened(server, server.repository())


def push(store: OciRegistry, package: Package, configuration: str = "[tasks]\n") -> None:
    store.push(package, "shop", configuration, {}, silent)


def test_an_empty_repository_has_no_packages(store: OciRegistry) -> None:
    assert store.packages() == []
    assert store.uses() == []
    with pytest.raises(NotFoundError):
        store.find("v1")


def test_what_was_pushed_is_listed_found_and_pulled(store: OciRegistry, quick_folder: Path) -> None:
    package = made(quick_folder)
    push(store, package)
    (listed,) = store.packages()
    assert (listed.name, listed.application) == (f"{store.address}:v1", "shop")
    assert replace(listed.package, path=package.path) == package, "the list has everything without further requests"
    found = store.find("v1")
    assert found.configuration == "[tasks]\n" and found.package == replace(package, path="")
    for reference in (f"{store.address}:v1", f"{store.address}@{found.manifest}", found.manifest):
        assert store.find(reference).package.digest == package.digest
    target = quick_folder / "pulled"
    target.mkdir()
    store.pull(found, target, silent)
    assert (target / "package.tar.zst").read_bytes() == b"the archive of v1"
    store.verify(found, silent)


def test_a_second_push_of_the_same_changes_nothing(store: OciRegistry, quick_folder: Path) -> None:
    package = made(quick_folder)
    push(store, package)
    before = store.packages()
    push(store, package)
    assert store.packages() == before


def test_a_name_never_moves_to_another_package(store: OciRegistry, quick_folder: Path) -> None:
    push(store, made(quick_folder))
    with pytest.raises(RefusedError, match="another package already"):
        push(store, made(quick_folder, content=b"another archive"))
    assert store.find("v1").package.size_bytes == len(b"the archive of v1")


@pytest.mark.parametrize("id", ["v1+p12345678", "holdfast-env-x", ".hidden", "a" * 129])
def test_a_name_that_a_registry_cannot_have_is_refused(store: OciRegistry, quick_folder: Path, id: str) -> None:
    patch = AppliedPatch("a" * 64, "fix.patch", 1, "")
    with pytest.raises(RefusedError, match="cannot be pushed under its name"):
        push(store, made(quick_folder, id, patches=(patch,)))
    assert store.packages() == []


def test_packages_are_listed_by_the_time_of_their_push(
    store: OciRegistry, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, id in enumerate(("b", "c", "a")):
        monkeypatch.setattr("time.strftime", lambda *_, at=number: f"2026-12-01T10:00:0{at}Z")
        push(store, made(quick_folder, id, content=id.encode()))
    assert [one.package.id for one in store.packages()] == ["a", "c", "b"]


def test_more_packages_than_a_page_has_are_all_listed(
    store: OciRegistry, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.drivers.packages.registry.store._PAGE", 2)
    for number in range(5):
        push(store, made(quick_folder, f"v{number}"))
    assert sorted(one.package.id for one in store.packages()) == ["v0", "v1", "v2", "v3", "v4"]


def test_an_unknown_name_gets_a_suggestion(store: OciRegistry, quick_folder: Path) -> None:
    push(store, made(quick_folder, "v1-20261201"))
    with pytest.raises(NotFoundError) as raised:
        store.find("v1-20261202")
    assert "v1-20261201" in raised.value.next_step


@pytest.mark.parametrize("reference", ["", "../v1", "v1/../v2", "sha256:1", "a b", "v1?x=y"])
def test_a_reference_that_is_none_is_not_found(store: OciRegistry, reference: str) -> None:
    with pytest.raises(NotFoundError):
        store.find(reference)


def test_a_removed_package_is_no_longer_listed(store: OciRegistry, quick_folder: Path) -> None:
    push(store, made(quick_folder, "v1"))
    push(store, made(quick_folder, "v2", content=b"the second"))
    found = store.find("v1")
    for _ in range(2):
        store.remove(found)
    assert [one.package.id for one in store.packages()] == ["v2"]


def test_a_registry_that_forbids_removal_says_so(quick_folder: Path) -> None:
    server = RegistryServer(deletes=False)
    try:
        store = opened(server, "shop")
        push(store, made(quick_folder))
        with pytest.raises(RegistryError, match="does not allow") as raised:
            store.remove(store.find("v1"))
        assert "storage.delete" in raised.value.next_step
    finally:
        server.remove()


def test_each_environment_records_what_it_needs(store: OciRegistry, quick_folder: Path) -> None:
    push(store, made(quick_folder))
    production = EnvironmentUse("production", "production.1", "2026-12-01T10:00:00Z", "v1", ("v1",))
    staging = EnvironmentUse("staging", "staging.2", "2026-12-01T10:00:00Z", "v2", ("v1", "v2"))
    for use in (production, staging, staging):
        store.record(use)
    assert store.uses() == [production, staging]
    later = replace(production, packages=("v1", "v3"))
    store.record(later)
    assert store.uses() == [later, staging]
    assert [one.package.id for one in store.packages()] == ["v1"], "records are no packages"


def test_artifacts_of_others_are_no_packages(server: RegistryServer, quick_folder: Path) -> None:
    store = opened(server, server.repository())
    push(store, made(quick_folder))
    digest = store._put_manifest("foreign", _foreign(store))
    assert [one.package.id for one in store.packages()] == ["v1"]
    for reference in ("foreign", digest):
        with pytest.raises(DamagedError, match="not a package"):
            store.find(reference)


def _foreign(store: OciRegistry) -> Manifest:
    known = store._manifest("v1")
    assert known is not None
    return replace(known[0], config=replace(known[0].config, media_type="application/vnd.oci.image.config.v1+json"))


def test_an_index_of_images_in_the_repository_is_no_package(server: RegistryServer, quick_folder: Path) -> None:
    repository = server.repository()
    store = opened(server, repository)
    push(store, made(quick_folder))
    known = store._manifest("v1")
    assert known is not None
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": []}
    text = json.dumps(index).encode()
    request = urllib.request.Request(
        f"http://{server.address}/v2/{repository}/manifests/latest", text, {"Content-Type": kind}, method="PUT"
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
    assert [one.package.id for one in store.packages()] == ["v1"]
    with pytest.raises((DamagedError, NotFoundError)):
        store.find("latest")


@pytest.mark.parametrize("commit", ["", "--output=/tmp/x", "main", "c" * 39, "C" * 40])
def test_a_package_of_no_git_commit_is_refused(store: OciRegistry, quick_folder: Path, commit: str) -> None:
    push(store, made(quick_folder, commit=commit))
    with pytest.raises(DamagedError, match="git commit"):
        store.find("v1")


# --- what is damaged -----------------------------------------------------------------------------------


def test_an_archive_that_was_changed_is_refused(server: RegistryServer, store: OciRegistry, quick_folder: Path) -> None:
    package = made(quick_folder, content=b"the original archive %d" % id(store))
    push(store, package)
    found = store.find("v1")
    for content in (b"X" + b"the original archive %d" % id(store), b"short", b"The original archive %d" % id(store)):
        server.blob(package.digest).write_bytes(content)
        target = quick_folder / "pulled"
        target.mkdir(exist_ok=True)
        with pytest.raises((DamagedError, RegistryError)):
            store.pull(found, target, silent)
        assert list(target.iterdir()) == [], "nothing of it is left"
        with pytest.raises((DamagedError, RegistryError)):
            store.verify(found, silent)


def test_a_manifest_that_was_changed_is_refused(server: RegistryServer, store: OciRegistry, quick_folder: Path) -> None:
    push(store, made(quick_folder))
    found = store.find("v1")
    path = server.blob(found.manifest)
    path.write_bytes(path.read_bytes().replace(b"Reference: v1", b"Reference: v2"))
    with pytest.raises((DamagedError, RegistryError)):
        store.find(found.manifest)


def test_a_configuration_that_was_changed_is_refused(
    server: RegistryServer, store: OciRegistry, quick_folder: Path
) -> None:
    push(store, made(quick_folder), f"# {id(store)}\n")
    known = store._manifest("v1")
    assert known is not None
    path = server.blob(known[0].config.digest)
    path.write_bytes(path.read_bytes().replace(b"shop", b"shot"))
    with pytest.raises(DamagedError, match="not what was announced"):
        store.find("v1")


# --- logins and certificates -----------------------------------------------------------------------------


@pytest.fixture(params=["basic", "token"])
def guarded(request: pytest.FixtureRequest) -> Iterator[RegistryServer]:
    server = RegistryServer(login=request.param)
    yield server
    server.remove()


def test_a_login_by_a_secret_reference(
    guarded: RegistryServer, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", PASSWORD)
    store = opened(guarded, "shop/packages", user=USER, password="env:REGISTRY_PASSWORD")
    push(store, made(quick_folder))
    found = store.find("v1")
    target = quick_folder / "pulled"
    target.mkdir()
    store.pull(found, target, silent)
    store.remove(found)
    assert store.packages() == []


def test_without_the_right_password_it_is_refused_and_no_password_is_shown(
    guarded: RegistryServer, quick_folder: Path
) -> None:
    (quick_folder / "secret").write_text("not the right one\n")
    for options in ({}, {"user": USER, "password": f"file:{quick_folder}/secret"}):
        with pytest.raises(RegistryError) as raised:
            push(opened(guarded, "shop/packages", **options), made(quick_folder))
        assert "packages.registry.password" in raised.value.next_step
        assert "not the right one" not in str(raised.value)


def test_a_secret_that_does_not_resolve_names_its_reference(guarded: RegistryServer) -> None:
    with pytest.raises(HoldfastError, match="env:NO_SUCH_VARIABLE"):
        opened(guarded, "shop", user=USER, password="env:NO_SUCH_VARIABLE").packages()


def test_a_certificate_of_an_own_authority(quick_folder: Path) -> None:
    server = RegistryServer(tls=True)
    try:
        with pytest.raises(RegistryError, match="not trusted") as raised:
            opened(server, "shop").packages()
        assert "packages.registry.ca" in raised.value.next_step
        with pytest.raises(ConfigurationError, match=r"holdfast\.toml"):
            opened(server, "shop", authority=quick_folder / "none.pem").packages()
        store = opened(server, "shop", authority=server.authority)
        push(store, made(quick_folder))
        assert [one.package.id for one in store.packages()] == ["v1"]
    finally:
        server.remove()


# --- a registry that is gone -------------------------------------------------------------------------------


def test_a_registry_that_is_down_is_named(quick_folder: Path) -> None:
    server = RegistryServer()
    server.remove()
    for act in (lambda store: store.packages(), lambda store: push(store, made(quick_folder))):
        with pytest.raises(RegistryError, match=f"registry {server.address} does not answer") as raised:
            act(opened(server, "shop"))
        assert raised.value.next_step


def test_a_registry_that_was_restarted_is_asked_again(quick_folder: Path) -> None:
    server = RegistryServer()
    try:
        store = opened(server, "shop")
        push(store, made(quick_folder))
        server.stop()
        server.start()
        assert [one.package.id for one in store.packages()] == ["v1"], "the connection was closed meanwhile"
    finally:
        server.remove()


_LARGE = bytes(range(256)) * 8192


def test_a_push_that_breaks_lists_nothing_and_can_be_repeated(server: RegistryServer, quick_folder: Path) -> None:
    repository = server.repository()
    package = made(quick_folder, content=_LARGE)
    with servers.relay(server.port, upwards=1 << 20) as cut:
        with pytest.raises(RegistryError, match="does not answer"):
            push(opened(server, repository, port=cut.port), package)
    assert server.tags(repository) == []
    store = opened(server, repository)
    assert store.packages() == []
    push(store, package)
    store.verify(store.find("v1"), silent)


def test_a_pull_that_breaks_leaves_nothing_and_can_be_repeated(server: RegistryServer, quick_folder: Path) -> None:
    repository = server.repository()
    store = opened(server, repository)
    push(store, made(quick_folder, content=_LARGE))
    target = quick_folder / "pulled"
    target.mkdir()
    with servers.relay(server.port, downwards=1 << 20) as cut:
        broken = opened(server, repository, port=cut.port)
        with pytest.raises(RegistryError, match="does not answer"):
            broken.pull(store.find("v1"), target, silent)
    assert list(target.iterdir()) == []
    store.pull(store.find("v1"), target, silent)
    assert (target / "package.tar.zst").read_bytes() == _LARGE


def test_the_manifest_says_what_others_look_for(server: RegistryServer, store: OciRegistry, quick_folder: Path) -> None:
    push(store, made(quick_folder))
    manifest = json.loads(server.blob(store.find("v1").manifest).read_text())
    said = manifest["annotations"]
    assert said["org.opencontainers.image.revision"] == "c" * 40
    assert said["org.opencontainers.image.created"] == "2026-12-01T10:00:00Z"
    assert said["holdfast.label"] == "Reference: v1"
    (layer,) = manifest["layers"]
    assert layer["annotations"] == {"org.opencontainers.image.title": "package.tar.zst"}, "the file that oras writes"
