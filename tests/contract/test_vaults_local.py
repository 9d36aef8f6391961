"""What is the local vault's own: its files, formats, damage of every byte, clones, kills."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.entries import Selection
from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.vaults.local import content_store, small_files, tree_pass
from holdfast.drivers.vaults.local import manifest as manifests
from holdfast.drivers.vaults.local.vault import LocalVault
from holdfast.errors import CancelledError, DamagedError, HoldfastError, OwnerMismatchError, RefusedError
from holdfast.system.sealed import sealed
from tests.contract import trees
from tests.contract.test_vaults import Keeper, no_check, no_progress, write
from tests.proof import patience

OWNER = "guestbook.production"
MASKS = (0x01, 0x20, 0xFF)


@pytest.fixture
def keeper(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """A small vault that has every kind of file: files above 64 bytes become objects of their own."""
    monkeypatch.setattr(content_store, "SMALL_BYTES", 64)
    for module in (small_files, tree_pass):
        monkeypatch.setattr(module, "TINY_BYTES", 0)
    trees.plain(quick_folder / "media")
    (quick_folder / "media" / "large").write_bytes(bytes(range(150)))
    return Keeper(LocalVault(quick_folder / "vault", OWNER), LocalFiles("media", quick_folder / "media"))


def open_packs(keeper: Keeper) -> list[str]:
    """Return the packs of a vault that this process has open."""
    found = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
    return [name for name in found if name.startswith(f"{vault_path(keeper)}/packs/")]


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def vault_path(keeper: Keeper) -> Path:
    assert isinstance(keeper.vault, LocalVault)
    return keeper.vault.path


def backup_folder(keeper: Keeper, id: str) -> Path:
    return vault_path(keeper) / "backups" / id


def all_files(keeper: Keeper) -> list[Path]:
    found = sorted(path for path in vault_path(keeper).rglob("*") if path.is_file())
    for path in found:
        os.chmod(path, 0o600)
    return found


def refused_before_anything_is_visible(keeper: Keeper, id: str, number: int) -> bool:
    """True if a restore into an empty folder raises DamagedError and leaves the folder empty."""
    target = LocalFiles("target", keeper.files.root.parent / f"t{number}")
    target.root.mkdir()
    try:
        source = keeper.vault.open_set(id)
        target.stage("restore", source.listing("media"), source.fetch, no_check)
    except DamagedError:
        return set(os.listdir(target.root)) <= {".holdfast"}
    return False


def test_the_progress_goes_on_within_a_large_file(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_store, "_BLOCK_BYTES", 32)
    monkeypatch.setattr(content_store.durable, "clone", lambda source, target: False)
    seen: list[int] = []
    keeper.vault.begin("run1").store_tree(
        "media", keeper.files, keep_vanished=False, check=no_check, progress=lambda done, total, unit: seen.append(done)
    )
    steps = [later - earlier for earlier, later in itertools.pairwise(seen)]
    assert steps.count(32) >= 3, seen


# --- damage -------------------------------------------------------------------------------------------


def test_a_flipped_byte_never_gives_a_file_another_content(keeper: Keeper) -> None:
    """Also where only what a few files need is read: their listing, and their places by bisection."""
    id = keeper.make("run1")
    chosen = Selection([b"a/b/deep.txt", b"large"])
    ends: Counter[str] = Counter()
    for path in all_files(keeper):
        whole = path.read_bytes()
        for position in range(0, len(whole), 5):
            damaged = bytearray(whole)
            damaged[position] ^= 0x01
            path.write_bytes(damaged)
            ends[part_of(keeper, id, chosen)] += 1
        path.write_bytes(whole)
    assert part_of(keeper, id, chosen) == "whole"
    assert ends["damaged"] > 100 and ends.keys() == {"damaged", "whole"}, ends


def part_of(keeper: Keeper, id: str, chosen: Selection) -> str:
    """Read a part of a backup; tell whether it is whole or damaged, and whether anything is wrong unnoticed."""
    try:
        source = keeper.vault.open_set(id, ())
        entries = list(source.entries("media", chosen))
        for entry in entries:
            if entry.kind == "file":
                with tempfile.TemporaryFile() as file:
                    source.fetch(entry, file.fileno())
                    file.seek(0)
                    if file.read() != (keeper.files.root / entry.path).read_bytes():
                        return "wrong"
        return "whole" if len(entries) == 4 else "incomplete"
    except HoldfastError:
        return "damaged"


def test_every_flipped_byte_is_found_and_never_restored(
    keeper: Keeper, record_property: Callable[[str, object], None]
) -> None:
    id = keeper.make("run1")
    flips = 0
    kinds = {path.relative_to(vault_path(keeper)).parts[0] for path in all_files(keeper)}
    assert kinds == {"holdfast-vault.json", "objects", "packs", "backups"}
    for path in all_files(keeper):
        whole = path.read_bytes()
        for position in range(len(whole)):
            mask = MASKS[(position + flips) % len(MASKS)]
            with open(path, "r+b") as file:
                file.seek(position)
                file.write(bytes([whole[position] ^ mask]))
            place = f"{path.name[:40]} byte {position} ^ {mask:#x}"
            assert keeper.wrong() != [], f"verify does not find {place}"
            assert refused_before_anything_is_visible(keeper, id, flips), f"a restore does not refuse {place}"
            flips += 1
        path.write_bytes(whole)
    assert keeper.wrong() == []
    assert flips > 1500
    record_property("vault_flips", f"{flips} bytes flipped one at a time, {flips} found, {flips} restores refused")


@pytest.mark.parametrize("how", ["removed", "emptied", "cut by one byte", "cut in half", "longer by one byte"])
def test_every_file_missing_or_cut_is_found_and_never_restored(keeper: Keeper, how: str) -> None:
    id = keeper.make("run1")
    for number, path in enumerate(all_files(keeper)):
        whole = path.read_bytes()
        ends = {"emptied": 0, "cut by one byte": len(whole) - 1, "cut in half": len(whole) // 2}
        if how == "removed":
            path.unlink()
        elif how in ends:
            path.write_bytes(whole[: ends[how]])
        else:
            path.write_bytes(whole + b"\0")
        assert keeper.wrong() != [], f"{path.name}: {how}"
        assert refused_before_anything_is_visible(keeper, id, number), f"{path.name}: {how}"
        path.write_bytes(whole)
    assert keeper.wrong() == []


def test_a_damaged_manifest_is_named_not_listed_and_stops_prune(keeper: Keeper) -> None:
    damaged, whole = keeper.make("run1"), keeper.make("run2")
    path = backup_folder(keeper, damaged) / "manifest.json"
    text = path.read_bytes()
    os.chmod(path, 0o600)
    path.write_bytes(text.replace(b"guestbook", b"Guestbook"))
    before = {path: path.stat().st_ino for path in all_files(keeper)}
    assert (keeper.vault.damaged(), keeper.ids()) == ([damaged], [whole])
    for prune in (lambda: keeper.vault.check_prune([whole]), lambda: keeper.vault.prune([whole], "prune1")):
        with pytest.raises(DamagedError, match=damaged) as refused:
            prune()
        assert str(backup_folder(keeper, damaged)) in refused.value.next_step
    assert {path: path.stat().st_ino for path in all_files(keeper)} == before
    path.write_bytes(text)
    assert keeper.ids() == [damaged, whole]


def test_a_new_set_is_whole_where_an_earlier_one_lost_a_content(keeper: Keeper) -> None:
    first = keeper.make("run1")
    (lost,) = vault_path(keeper).glob("objects/*/*")
    lost.unlink()
    assert keeper.wrong(first) != []
    assert keeper.wrong(keeper.make("run2")) == [], "a new set that is published is whole"


@pytest.mark.parametrize("how", ["truncated", "flipped"])
@pytest.mark.parametrize("place", ["objects/*/*", "packs/*.pack"])
def test_a_backup_after_damage_is_whole_once_the_damage_is_known(keeper: Keeper, place: str, how: str) -> None:
    """Contents are trusted by their names only as long as nobody found other bytes under them."""
    first = keeper.make("run1")
    (path,) = vault_path(keeper).glob(place)
    os.chmod(path, 0o600)
    content = path.read_bytes()
    path.write_bytes(content[:-1] if how == "truncated" else bytes([content[0] ^ 1]) + content[1:])
    assert keeper.wrong() != []
    for file in keeper.files.root.rglob("*"):
        if file.is_file():
            os.utime(file)
    second = keeper.make("run2")
    original = trees.look(keeper.files.root)
    assert keeper.wrong(second) == []
    assert keeper.restored(second, "again") == original
    if place.startswith("objects"):
        assert keeper.wrong() == [], "an object that was written anew makes older sets whole too"
    third = keeper.make("run3")
    assert keeper.wrong(third) == [] and keeper.wrong(first) == ([] if keeper.wrong() == [] else keeper.wrong())


def test_a_torn_object_is_written_anew_though_nobody_has_looked(keeper: Keeper) -> None:
    keeper.make("run1")
    (path,) = vault_path(keeper).glob("objects/*/*")
    os.chmod(path, 0o600)
    path.write_bytes(path.read_bytes()[:100])
    second = keeper.make("run2")
    assert keeper.wrong(second) == [] == keeper.wrong()


@pytest.mark.parametrize("watched", [True, False])
def test_a_directory_that_became_a_file_takes_what_was_below_it_along(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """Also where what vanished between two passes is kept: a set names nothing that a restore would refuse."""
    if not watched:
        monkeypatch.setattr(LocalFiles, "watched", lambda _: None)
    media = keeper.files.root
    (media / "zz" / "deep").mkdir(parents=True)
    for name in ("zz/one", "zz/deep/two", "zzz"):
        (media / name).write_bytes(name.encode() * 30)
    run = keeper.vault.begin("run1")
    run.store_tree("media", keeper.files, keep_vanished=True, check=no_check, progress=no_progress)
    for name in ("zz/one", "zz/deep/two", "zzz"):
        (media / name).unlink()
    (media / "zz" / "deep").rmdir()
    (media / "zz").rmdir()
    (media / "zz").write_bytes(b"a file now")
    run.store_tree("media", keeper.files, keep_vanished=True, check=no_check, progress=no_progress)
    write(run, "database.main.fake", b"a dump")
    run.finish(keeper.manifest("run1"))
    id = keeper.vault.publish("run1")
    assert keeper.wrong(id) == []
    restored = keeper.restored(id, "again")
    assert b"zzz" in restored, "what vanished elsewhere is kept"
    assert {path for path in restored if path.startswith(b"zz")} == {b"zz", b"zzz"}


def test_a_listing_that_a_restore_would_refuse_is_found_by_verification(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.drivers.vaults.local.diff.Merge._vanished", lambda _, before: iter([(before, False)]))
    monkeypatch.setattr(LocalFiles, "watched", lambda _: None)
    (keeper.files.root / "zz").mkdir()
    (keeper.files.root / "zz" / "one").write_bytes(b"one")
    run = keeper.vault.begin("run1")
    run.store_tree("media", keeper.files, keep_vanished=True, check=no_check, progress=no_progress)
    (keeper.files.root / "zz" / "one").unlink()
    (keeper.files.root / "zz").rmdir()
    (keeper.files.root / "zz").write_bytes(b"a file now")
    run.store_tree("media", keeper.files, keep_vanished=True, check=no_check, progress=no_progress)
    write(run, "database.main.fake", b"a dump")
    run.finish(keeper.manifest("run1"))
    (problem,) = keeper.wrong(keeper.vault.publish("run1"))
    assert "zz/one" in problem and "cannot be restored" in problem


def test_a_stop_is_obeyed_in_the_middle_of_one_large_file(keeper: Keeper) -> None:
    with open(keeper.files.root / "huge", "wb") as file:
        for number in range(8):
            file.write(bytes([number]) * (1 << 20))
        file.truncate(64 << 20)  # and a hole, which is hashed as a reader sees it
    calls = 0

    def stop_at_the_third() -> None:
        nonlocal calls
        calls += 1
        if calls >= 3:
            raise CancelledError("stopped")

    run = keeper.vault.begin("run1")
    with pytest.raises(CancelledError):
        run.store_tree("media", keeper.files, keep_vanished=False, check=stop_at_the_third, progress=no_progress)
    assert calls < 10, "each thread stops at its next block"
    keeper.vault.abandon("run1")


def test_a_refused_damaged_set_leaves_no_pack_open(keeper: Keeper) -> None:
    keeper.make("run1")
    (index,) = vault_path(keeper).glob("packs/*.idx")
    os.chmod(index, 0o600)
    index.write_bytes(index.read_bytes().replace(b" ", b"_", 1))
    assert keeper.wrong() != []
    assert open_packs(keeper) == []


def test_a_pack_is_open_no_longer_than_its_reader(keeper: Keeper) -> None:
    source = keeper.vault.open_set(keeper.make("run1"))
    entry = next(entry for entry in source.listing("media") if entry.kind == "file" and entry.size)
    with tempfile.TemporaryFile() as file:
        source.fetch(entry, file.fileno())
    assert len(open_packs(keeper)) == 1
    del source
    assert open_packs(keeper) == []


# --- owner and format ---------------------------------------------------------------------------------


def test_another_owners_vault_is_refused_and_names_it(keeper: Keeper) -> None:
    id = keeper.make("run1")
    other = LocalVault(vault_path(keeper), "other.staging")
    with pytest.raises(OwnerMismatchError, match=re.escape(OWNER)):
        other.begin("run2")
    with pytest.raises(OwnerMismatchError):
        other.open_set(id)
    assert not (vault_path(keeper) / "tmp" / "run2").exists()
    keeper.vault.begin("run3")
    for change in (
        lambda: other.check_prune([id]),
        lambda: other.prune([id], "run2"),
        lambda: other.pin(id, "me", True),
        lambda: other.remove(id),
        lambda: other.publish("run3"),
        lambda: other.resume("run3"),
    ):
        with pytest.raises(OwnerMismatchError, match=re.escape(OWNER)):
            change()
    assert keeper.ids() == [id] and (vault_path(keeper) / "tmp" / "run3").exists()
    assert keeper.wrong() == []


def test_nothing_is_swept_while_another_state_directory_writes(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks lie elsewhere; the vault has one of its own."""
    monkeypatch.setattr("holdfast.drivers.vaults.local.vault._LOCK_SECONDS", 0.1)
    first = keeper.make("run1")
    keeper.finish("run2")
    other = LocalVault(vault_path(keeper), OWNER)
    for prune in (lambda: other.check_prune([first]), lambda: other.prune([first], "run3")):
        with pytest.raises(RefusedError, match="another process"):
            prune()
    assert keeper.vault.publish("run2") in keeper.ids()
    assert other.prune([first], "run3")["removed"] == 1
    assert keeper.wrong() == []


def test_a_folder_that_is_no_vault_is_refused(quick_folder: Path) -> None:
    (quick_folder / "photos").mkdir()
    (quick_folder / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(RefusedError):
        LocalVault(quick_folder / "photos", OWNER).begin("run1")
    assert os.listdir(quick_folder / "photos") == ["holiday.jpg"]


def test_a_vault_that_lost_its_own_file_is_not_taken_for_a_new_one(keeper: Keeper) -> None:
    keeper.make("run1")
    (vault_path(keeper) / "holdfast-vault.json").unlink()
    with pytest.raises(DamagedError):
        keeper.vault.begin("run2")


def newer(path: Path) -> None:
    value = json.loads(path.read_text())
    value.pop("sha256_of_the_rest")
    os.chmod(path, 0o600)
    path.write_bytes(sealed({**value, "format": manifests.FORMAT + 1}))


def test_a_newer_vault_is_refused_with_what_to_do(keeper: Keeper) -> None:
    id = keeper.make("run1")
    newer(vault_path(keeper) / "holdfast-vault.json")
    for action in (lambda: keeper.vault.begin("run2"), lambda: keeper.vault.open_set(id)):
        with pytest.raises(RefusedError, match="newer Holdfast"):
            action()
    assert not (vault_path(keeper) / "tmp" / "run2").exists()


def test_a_newer_set_is_refused_and_never_swept(keeper: Keeper) -> None:
    old, new = keeper.make("run1"), keeper.make("run2")
    newer(backup_folder(keeper, new) / "manifest.json")
    for action in (lambda: keeper.vault.open_set(new), lambda: keeper.vault.prune([old], "prune1")):
        with pytest.raises(HoldfastError, match="format"):
            action()
    assert backup_folder(keeper, old).is_dir()
    assert backup_folder(keeper, new).is_dir()


def test_names_that_lead_out_of_the_set_are_refused(keeper: Keeper) -> None:
    id = keeper.make("run1")
    path = backup_folder(keeper, id) / "manifest.json"
    value = json.loads(path.read_text())
    value.pop("sha256_of_the_rest")
    for key, wrong in (("files", {"../../x": {"size_bytes": 0, "sha256": ""}}), ("packs", ["../x"])):
        os.chmod(path, 0o600)
        path.write_bytes(sealed({**value, key: wrong}))
        with pytest.raises(DamagedError, match="outside"):
            keeper.vault.open_set(id)


# --- files, modes, kills ------------------------------------------------------------------------------


def test_the_vault_is_closed_to_others_and_contents_are_read_only(keeper: Keeper) -> None:
    id = keeper.make("run1")
    assert vault_path(keeper).stat().st_mode & 0o777 == 0o700
    for path in vault_path(keeper).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        if path.is_file() and (path.parent == backup_folder(keeper, id) or {"packs", "objects"} & set(path.parts)):
            assert path.stat().st_mode & 0o222 == 0, path


def test_the_sums_verify_without_holdfast(keeper: Keeper) -> None:
    folder = backup_folder(keeper, keeper.make("run1"))
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False, timeout=patience.limit(30)
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(b": OK") == 3


@pytest.mark.parametrize("point", ["before the rename", "after the rename"])
def test_a_publication_killed_at_its_rename_is_repeated(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class Killed(BaseException):
        pass

    keeper.finish("run1")
    real = os.rename

    def rename(source: Path, target: Path, **options: Any) -> None:
        if point == "after the rename":
            real(source, target, **options)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "rename", rename)
        keeper.vault.publish("run1")
    again = LocalVault(vault_path(keeper), OWNER)
    assert len(again.backups()) == (1 if point == "after the rename" else 0)
    assert again.publish("run1") == again.publish("run1")
    assert [backup.operation for backup in again.backups()] == ["run1"]
    assert keeper.wrong() == []


def test_hard_links_keep_their_attributes_through_a_restore_that_changes_nothing(folder: Path) -> None:
    if not trees.supports_xattrs(folder):
        pytest.skip(f"{folder} is on a filesystem without user extended attributes")
    (folder / "media").mkdir()
    (folder / "media" / "a").write_bytes(b"one")
    os.setxattr(folder / "media" / "a", "user.mime", b"text/plain")
    os.link(folder / "media" / "a", folder / "media" / "b")
    keeper = Keeper(LocalVault(folder / "vault", OWNER), LocalFiles("media", folder / "media"))
    before = trees.look(keeper.files.root)
    source = keeper.vault.open_set(keeper.make("run1"))
    keeper.files.stage("restore", source.listing("media"), source.fetch, no_check)
    keeper.files.apply("restore")
    assert trees.look(keeper.files.root) == before


@pytest.mark.parametrize("data", ["in the middle", "none"])
def test_holes_come_back_as_holes(quick_folder: Path, data: str) -> None:
    root = quick_folder / "media"
    root.mkdir()
    with open(root / "sparse", "wb") as file:
        if data != "none":
            file.seek(2 << 20)
            file.write(b"x" * 4096)
        file.truncate(6 << 20)
    keeper = Keeper(LocalVault(quick_folder / "vault", OWNER), LocalFiles("media", root))
    id = keeper.make("run1")
    assert keeper.restored(id, "again") == trees.look(root)
    (stored,) = vault_path(keeper).glob("objects/*/*")
    for path in (stored, quick_folder / "again" / "sparse"):
        assert path.stat().st_size == 6 << 20
        assert path.stat().st_blocks * 512 < 3 << 20, path  # holes are kept in whole blocks of 1 MiB


def test_prune_removes_what_operations_left_that_were_closed_as_they_stood(keeper: Keeper) -> None:
    keeper.make("run1")
    keeper.finish("run2")
    keeper.vault.prune([], "run3")
    assert os.listdir(keeper.vault.path / "tmp") == []  # type: ignore[attr-defined]  # of the local vault
    assert keeper.wrong() == []
