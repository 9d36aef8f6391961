"""`backup export`: plain files that other programs read, whole or not there."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import kept
from tests.contract import trees
from tests.e2e.cli import output, run, run_json, start
from tests.proof import patience
from tests.site import Site

EXPORT = ("backup", "export", "--unsanitized", "--reason", "a test")


@pytest.fixture(
    params=[
        "sqlite",
        "postgresql",
        *(pytest.param(name, marks=pytest.mark.variant(name)) for name in ("mariadb", "mysql")),
    ]
)
def installed(request: pytest.FixtureRequest) -> Iterator[Site]:
    with kept.site(request.param, backup=True) as site:
        yield site


@pytest.fixture
def plain() -> Iterator[Site]:
    with kept.site(backup=True) as site:
        yield site


def newest(site: Site) -> str:
    return str(run_json(site, "backup", "list")["data"]["backups"][-1]["id"])


def sums_of(folder: Path) -> list[str]:
    """Names that `sha256sum` proves."""
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True, text=True
    )
    return sorted(line.removesuffix(": OK") for line in done.stdout.splitlines())


def contents(tree: dict[bytes, tuple[Any, ...]]) -> dict[bytes, str]:
    """The digest of each file's content."""
    return {path: facts[-2] for path, facts in tree.items() if stat.S_ISREG(facts[0])}


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_was_exported_brings_the_data_back(installed: Site, folder: Path) -> None:
    rows, tree = installed.store.digest(), trees.look(installed.media)
    chosen = newest(installed)
    done = run(installed, *EXPORT, chosen, str(folder / "away"))
    assert done.returncode == 0, done.stderr
    assert "without being sanitized" in done.stderr
    away = folder / "away" / chosen
    names = files_in(away)
    assert {"manifest.json", "code.tar.zst", "code.json", "config.tar.zst", "media.tar.gz"} <= {*names}
    assert sums_of(away) == [name for name in names if name != "SHA256SUMS"]
    assert os.listdir(folder / "away") == [chosen]
    for path in (folder / "away", *(folder / "away").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0
    (folder / "look").mkdir()
    subprocess.run(["tar", "-xpf", away / "media.tar.gz", "-C", folder / "look"], check=True)
    assert trees.look(folder / "look") == tree

    installed.post(b"since the backup")
    for path in installed.media.rglob("*.bin"):
        path.unlink()
    (dump,) = away.glob("database.main.*")
    done = run(installed, "import", "database", str(dump))
    assert done.returncode == 0, done.stderr
    assert run(installed, "import", "files", str(away / "media.tar.gz"), "--into", "media").returncode == 0
    assert installed.store.digest() == rows
    assert contents(trees.look(installed.media)) == contents(tree)


def test_files_as_a_folder_and_some_of_a_set(plain: Site, folder: Path) -> None:
    odd = plain.media / "back\\slash\nand line"
    odd.write_bytes(b"odd")
    os.link(odd, plain.media / "same")
    assert run(plain, "backup", "create").returncode == 0
    chosen = newest(plain)
    done = run(plain, *EXPORT, str(folder / "away"), "--only", "media", "--format", "folder")
    assert done.returncode == 0, done.stderr
    away = folder / "away" / chosen
    assert sorted(os.listdir(away)) == ["SHA256SUMS", "manifest.json", "media"]
    assert trees.look(away / "media") == trees.look(plain.media)
    assert len(sums_of(away)) == len(files_in(away)) - 1
    (away / "media" / odd.name).write_bytes(b"ODD")
    with pytest.raises(subprocess.CalledProcessError):
        sums_of(away)


def test_all_sets_and_what_is_there_already(plain: Site, folder: Path) -> None:
    listed = [item["id"] for item in run_json(plain, "backup", "list")["data"]["backups"]]
    (folder / "away").mkdir()
    assert run(plain, *EXPORT, "--all", str(folder / "away")).returncode == 0
    assert sorted(os.listdir(folder / "away")) == sorted(listed) and len(listed) > 1
    mine = folder / "away" / listed[0] / "mine"
    mine.touch()
    again = run(plain, *EXPORT, listed[0], str(folder / "away"))
    assert again.returncode == 4 and "already exists" in again.stderr and "Move it, or" in again.stderr
    assert mine.exists()


def test_folders_that_are_refused(plain: Site, folder: Path) -> None:
    (folder / "link").symlink_to(plain.media)
    for place in (plain.media, plain.media / "x", folder / "link", plain.vault, plain.state / "x", folder / "no" / "x"):
        done = run(plain, *EXPORT, "latest", str(place))
        assert done.returncode == 4, (place, done.stderr)
    for arguments in (
        ("latest",),
        (newest(plain),),
        ("a", "b", "c"),
        ("--all", "a", "b"),
    ):
        assert run(plain, *EXPORT, *arguments).returncode == 2, arguments
    assert run(plain, *EXPORT, str(folder), "--only", "no").returncode == 4
    assert trees.look(plain.media).keys() == {
        os.fsencode(path.relative_to(plain.media)) for path in plain.media.rglob("*") if ".holdfast" not in path.parts
    }
    assert not (folder / "no").exists()


def test_what_left_is_in_the_operations_record(plain: Site, folder: Path) -> None:
    assert run(plain, *EXPORT, "latest", str(folder / "away"), "--dry-run").returncode == 0
    assert not (folder / "away").exists()
    run(plain, *EXPORT, "latest", str(folder / "away"))
    record = run_json(plain, "log", "show", "latest")["data"]
    assert str(folder / "away") in record["title"]
    (written,) = [step["facts"]["warnings"] for step in record["steps"] if step["name"] == "export.write"]
    assert "without being sanitized" in written[0] and newest(plain) in written[0]
    run(plain, "backup", "export", "latest", str(folder / "code"), "--only", "code")
    record = run_json(plain, "log", "show", "latest")["data"]
    assert [step["facts"]["warnings"] for step in record["steps"] if step["name"] == "export.write"] == [[]]


@pytest.mark.parametrize("part", ["packs/*.pack", "objects/*/*", "backups/*/database.main.*"])
def test_a_damaged_set_is_an_error_and_no_export(plain: Site, folder: Path, part: str) -> None:
    (plain.media / "large").write_bytes(os.urandom(3 << 20))
    assert run(plain, "backup", "create").returncode == 0
    victims = sorted(path for path in plain.vault.glob(part) if "tmp" not in path.relative_to(plain.vault).parts)
    assert victims
    for path in victims:
        path.chmod(0o600)
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    done = run(plain, *EXPORT, "latest", str(folder / "away"))
    assert done.returncode not in (0, 1), done.stderr
    assert "damaged" in done.stderr
    assert not (folder / "away").exists()


def test_one_that_is_killed_leaves_nothing_after_recover(plain: Site, folder: Path) -> None:
    large = os.urandom(1 << 20)
    with open(plain.media / "large", "wb") as file:
        for _ in range(192):
            file.write(large)
    assert run(plain, "backup", "create").returncode == 0
    chosen = newest(plain)
    begun = start(plain, *EXPORT, chosen, str(folder / "away"))
    archive = folder / "away" / f".{chosen}.guestbook.production.export" / "media.tar.gz"
    deadline = patience.deadline(30)
    while not (archive.exists() and archive.stat().st_size > 1 << 20):
        assert begun.poll() is None and time.monotonic() < deadline, output(plain)
        time.sleep(0.01)
    pruned = run(plain, "backup", "prune")
    assert begun.poll() is None, "it was over before it could be disturbed"
    assert pruned.returncode == 5 and "export backup" in pruned.stderr
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert os.listdir(folder / "away") == [archive.parent.name]
    assert "recover" in run(plain, "backup", "prune").stderr
    shutil.copytree(archive.parent, folder / "left")
    assert run(plain, "recover").returncode == 0
    assert not (folder / "away").exists()
    (folder / "away").mkdir()
    shutil.copytree(folder / "left", archive.parent)  # as on a disk that was taken out before the recovery
    (plain.media / "large").unlink()
    done = run(plain, *EXPORT, chosen, str(folder / "away"), "--only", "main")
    assert done.returncode == 0, done.stderr
    assert os.listdir(folder / "away") == [chosen]
