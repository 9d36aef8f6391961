"""What every Packages driver promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from holdfast.drivers.packages import python_dependencies
from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.drivers.packages.python_dependencies import PythonDependencies
from holdfast.drivers.protocols.packages import Packages
from holdfast.errors import CommandFailedError, DamagedError, HoldfastError, NotFoundError
from holdfast.model.packages import Package
from holdfast.system import durable
from holdfast.system.host import Host
from tests import harnesses
from tests.harnesses.harness import History
from tests.proof import patience

PACKAGES = harnesses.packages()
FIRST = {"app.py": "print('one')\n", "holdfast.toml": "\n[tasks]\nmigrate = ['true']\n", "sub/deep.txt": "deep\n"}
SECOND = {"app.py": "print('two')\n", "sub/deep.txt": "deep\n"}


@dataclass
class Source:
    """A driver over a history of two commits: tag v1, then branch main and feature/x."""

    packages: Packages
    first: str
    second: str
    folder: Path

    def release(self, package: Package, name: str = "release") -> dict[str, str]:
        """The files of an unpacked release, its marker left out."""
        target = self.folder / name
        self.packages.unpack(package, target, {"release": name})
        marker = target / ".holdfast-release.json"
        assert json.loads(marker.read_text()) == {"release": name}
        for path in (marker, target / "compose.json", target / "images.json"):
            path.unlink(missing_ok=True)
        return {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), "-c", "user.name=T", "-c", "user.email=t@example.invalid", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=patience.limit(30),
    )
    return done.stdout.strip()


def commit(repository: Path, files: Mapping[str, str], message: str) -> str:
    for path in repository.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message)
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "--quiet", "--initial-branch=main")
    first = commit(folder, FIRST, "one")
    git(folder, "tag", "v1")
    second = commit(folder, SECOND, "two")
    git(folder, "branch", "feature/x")
    return folder, first, second


@pytest.fixture(params=list(PACKAGES))
def source(request: pytest.FixtureRequest, quick_folder: Path, repository: tuple[Path, str, str]) -> Iterator[Source]:
    path, first, second = repository
    with PACKAGES[request.param](quick_folder, History(path, first, second, {first: FIRST, second: SECOND})) as made:
        yield Source(made, first, second, quick_folder)


def test_a_tag_a_branch_and_a_commit_are_resolved(source: Source) -> None:
    assert source.packages.resolve("v1") == (source.first, "v1")
    assert source.packages.resolve("main") == (source.second, "main")
    assert source.packages.resolve("feature/x") == (source.second, "feature-x")
    assert source.packages.resolve(source.first) == (source.first, source.first[:12])
    assert source.packages.resolve(source.second[:8]) == (source.second, source.second[:12])


@pytest.mark.parametrize("reference", ["v2", "0000000", "--help", "-v1", "v1 v1", ""])
def test_an_unknown_reference_is_not_found(source: Source, reference: str) -> None:
    with pytest.raises(NotFoundError):
        source.packages.resolve(reference)


def test_what_is_ahead_of_a_commit_is_counted(source: Source) -> None:
    assert source.packages.newer(source.first).ahead == {"main": 1, "feature/x": 1}
    assert source.packages.newer(source.second).ahead == {}
    assert source.packages.newer(source.second).tags == []
    with pytest.raises(NotFoundError):
        source.packages.newer("0" * 40)


def test_a_file_of_a_commit_is_read_as_it_is(source: Source) -> None:
    assert source.packages.file_of(source.first, "holdfast.toml") == FIRST["holdfast.toml"]


def test_a_file_that_a_commit_has_not_is_none(source: Source) -> None:
    assert source.packages.file_of(source.second, "holdfast.toml") is None
    assert source.packages.file_of(source.second, "sub/none") is None
    assert "deep" in (source.packages.file_of(source.second, "sub/deep.txt") or "")


def test_build_unpack_and_build_again(source: Source) -> None:
    assert source.packages.packages() == []
    package = source.packages.build(source.first, "v1", "run1")
    assert (package.id, package.label, package.commit) == (f"v1-{source.first[:12]}", "v1", source.first)
    assert source.packages.packages() == [package]
    assert source.release(package) == FIRST
    assert source.packages.build(source.first, "v1", "run2") == package, "one that is there is returned"
    other = source.packages.build(source.second, "main", "run3")
    assert source.release(other, "other") == SECOND
    assert {known.id for known in source.packages.packages()} == {package.id, other.id}


def test_abandon_leaves_what_was_built(source: Source) -> None:
    package = source.packages.build(source.first, "v1", "run1")
    for run in ("run1", "run1", "never heard of"):
        source.packages.abandon(run)
    assert source.packages.packages() == [package]
    assert source.release(package) == FIRST


def test_a_release_folder_left_half_done_is_made_anew(source: Source) -> None:
    package = source.packages.build(source.first, "v1", "run1")
    (source.folder / "release" / "sub").mkdir(parents=True)
    (source.folder / "release" / "stray").write_text("left over")
    assert source.release(package) == FIRST


def test_remove_may_be_repeated(source: Source) -> None:
    package, other = (source.packages.build(id, id[:3], "run") for id in (source.first, source.second))
    for id in (package.id, package.id, "unknown"):
        source.packages.remove(id)
    assert source.packages.packages() == [other]


def test_a_damaged_archive_is_never_unpacked(source: Source) -> None:
    package = source.packages.build(source.first, "v1", "run1")
    archive = Path(package.path) / "package.tar.zst"
    content = bytearray(archive.read_bytes())
    content[-5] ^= 0x01
    archive.write_bytes(content)
    with pytest.raises(DamagedError):
        source.packages.unpack(package, source.folder / "release", {})
    archive.unlink()
    with pytest.raises((DamagedError, FileNotFoundError)):
        source.packages.unpack(package, source.folder / "release", {})
    assert not (source.folder / "release").exists()


def test_a_damaged_archive_is_built_anew(source: Source) -> None:
    package = source.packages.build(source.first, "v1", "run1")
    archive = Path(package.path) / "package.tar.zst"
    archive.write_bytes(archive.read_bytes()[:-1])
    again = source.packages.build(source.first, "v1", "run2")
    source.packages.unpack(again, source.folder / "release", {})
    assert (again.id, source.packages.packages()) == (package.id, [again])


def saved(source: Source, **changes: str) -> Path:
    """An archive as a backup keeps it: its package's record beside it."""
    package = source.packages.build(source.first, "v1", "run1")
    (source.folder / "set").mkdir(exist_ok=True)
    archive = source.folder / "set" / "code.tar.zst"
    shutil.copy(Path(package.path) / "package.tar.zst", archive)
    archive.with_name("code.json").write_text(json.dumps({**asdict(package), **changes}))
    return archive


def test_an_archive_out_of_a_backup_is_adopted(source: Source) -> None:
    archive = saved(source)
    (package,) = source.packages.packages()
    assert source.packages.adopt(archive) == package, "one that is there is returned"
    source.packages.remove(package.id)
    adopted = source.packages.adopt(archive)
    assert source.packages.adopt(archive) == adopted
    assert (adopted.id, adopted.digest, adopted.commit) == (package.id, package.digest, package.commit)
    assert source.release(adopted) == FIRST


def test_a_damaged_archive_is_not_adopted(source: Source) -> None:
    archive = saved(source)
    for package in source.packages.packages():
        source.packages.remove(package.id)
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        source.packages.adopt(archive)
    assert source.packages.packages() == []


@pytest.mark.parametrize("record", [None, "", "{}", "[]", '{"id": 1}'])
def test_an_archive_without_a_whole_record_is_damaged(source: Source, record: str | None) -> None:
    archive = saved(source)
    archive.with_name("code.json").unlink()
    if record is not None:
        archive.with_name("code.json").write_text(record)
    with pytest.raises(DamagedError):
        source.packages.adopt(archive)


def test_a_record_cannot_lead_out_of_the_store(source: Source) -> None:
    archive = saved(source, id="../escaped")
    with pytest.raises(HoldfastError):
        source.packages.adopt(archive)
    assert not (source.folder / "escaped").exists()


# --- archives -----------------------------------------------------------------------------------------


def archive_packages(source: tuple[Path, str, str], folder: Path, *build: list[str]) -> ArchivePackages:
    return ArchivePackages(folder / "packages", source[0], Host(), build=build)


def test_build_commands_run_in_the_tree_and_their_work_is_packed(
    repository: tuple[Path, str, str], quick_folder: Path
) -> None:
    code = "import pathlib; pathlib.Path('made.txt').write_text(pathlib.Path('app.py').read_text().upper())"
    packages = archive_packages(repository, quick_folder, [sys.executable, "-c", code])
    package = packages.build(repository[1], "v1", "run1")
    packages.unpack(package, quick_folder / "release", {})
    assert (quick_folder / "release" / "made.txt").read_text() == FIRST["app.py"].upper()


def test_a_build_that_fails_leaves_no_package_and_the_earlier_one(
    repository: tuple[Path, str, str], quick_folder: Path
) -> None:
    good = archive_packages(repository, quick_folder).build(repository[1], "v1", "run1")
    bad = archive_packages(repository, quick_folder, ["false"])
    with pytest.raises(CommandFailedError):
        bad.build(repository[1], "v1", "run2")
    assert bad.packages() == [good]
    bad.abandon("run2")
    assert bad.packages() == [good]
    assert not (quick_folder / "packages" / "tmp" / "run2").exists()


def test_another_recipe_builds_anew_under_the_same_id(repository: tuple[Path, str, str], quick_folder: Path) -> None:
    first = archive_packages(repository, quick_folder).build(repository[1], "v1", "run1")
    code = "import pathlib; pathlib.Path('made.txt').write_text('x')"
    second = archive_packages(repository, quick_folder, [sys.executable, "-c", code]).build(repository[1], "v1", "run2")
    assert (second.id, second.digest != first.digest) == (first.id, True)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_rebuild_killed_at_its_renames_gives_the_earlier_package_back(
    repository: tuple[Path, str, str], quick_folder: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    class Killed(BaseException):
        pass

    first = archive_packages(repository, quick_folder).build(repository[1], "v1", "run1")
    packages = archive_packages(repository, quick_folder, ["true"])
    real, left = os.rename, iter(range(renames))

    def rename(source: Path, target: Path, **options: Any) -> None:
        if (Path(source).name == "package" or Path(target).name == "replaced") and next(left, None) is None:
            raise Killed
        real(source, target, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "rename", rename)
        packages.build(repository[1], "v1", "run2")
    packages.abandon("run2")
    assert [package.digest for package in packages.packages()] == [first.digest]


def test_what_a_killed_removal_left_goes_with_the_next_one(
    repository: tuple[Path, str, str], quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = archive_packages(repository, quick_folder)
    package = packages.build(repository[1], "v1", "run1")
    tmp = quick_folder / "packages" / "tmp"
    with monkeypatch.context() as patch, pytest.raises(NotADirectoryError):
        patch.setattr(durable, "remove_tree", lambda path: os.listdir(__file__))
        packages.remove(package.id)
    assert list(tmp.iterdir()) != []
    packages.remove()
    assert packages.packages() == [] and list(tmp.iterdir()) == []


def test_modules_of_the_application_do_not_stand_in_for_the_languages_own(folder: Path) -> None:
    """Compiling runs in the release, which may have a `queue.py`; what is no Python is left as it is."""
    release = folder / "release"
    release.mkdir()
    (release / "queue.py").write_text("raise SystemExit('the application was run')\n")
    host = Host()
    host.run(python_dependencies.environment_command(sys.executable, release / ".venv"), cwd=release)
    modules = next((release / ".venv" / "lib").glob("python*")) / "site-packages"
    (modules / "whole.py").write_text("a = 1\n")
    (modules / "other.py").write_text("print 'of an older version'\n")
    PythonDependencies(host, "", sys.executable, patience.limit(60))._compile(release)
    assert [path.name.partition(".")[0] for path in (modules / "__pycache__").iterdir()] == ["whole"]


def test_a_compiler_that_is_killed_fails_the_release(folder: Path) -> None:
    (folder / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (folder / "python").chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "python").rename(folder / ".venv" / "bin" / "python")
    with pytest.raises(CommandFailedError):
        PythonDependencies(Host(), "", sys.executable, patience.limit(60))._compile(folder)
