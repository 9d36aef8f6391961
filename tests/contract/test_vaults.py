"""What every Vault driver promises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.drivers.entries import Children, NamePattern, Selection
from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.protocols.vaults import StoredBackup, Vault, VaultRun
from holdfast.errors import DamagedError, HoldfastError, NotFoundError, RefusedError
from holdfast.model import Backup
from tests import harnesses
from tests.contract import trees

VAULTS = harnesses.vaults()


def no_check() -> None:
    pass


def no_progress(done: int, total: int | None, unit: str) -> None:
    pass


def write(run: VaultRun, name: str, content: bytes) -> None:
    with run.write(name) as file:
        file.write(content)


def read(source: StoredBackup, name: str) -> bytes:
    with source.open(name) as file:
        return file.read()


class Keeper:
    """A vault and a tree of files that goes into it."""

    def __init__(
        self, vault: Vault, files: LocalFiles, damage: Callable[[str, str], None] = lambda id, name: None
    ) -> None:
        self.vault = vault
        self.files = files
        self.damage = damage
        self.count = 0

    def manifest(self, run: str) -> Backup:
        self.count += 1
        at = f"2026-01-01T00:00:{self.count:02d}Z"
        return Backup(
            id=self.vault.new_id(),
            sequence=self.count,
            created_at=at,
            instant=at,
            consistency="live",
            application="guestbook",
            environment="production",
            operation=run,
            release={},
            datasets={"media": {"kind": "files"}, "main": {"kind": "fake"}},
            packs=[],
            holdfast_version="0",
            size_bytes=0,
            new_bytes=0,
        )

    def finish(self, run: str, dump: bytes = b"a dump") -> None:
        begun = self.vault.begin(run)
        begun.store_tree("media", self.files, keep_vanished=False, check=no_check, progress=no_progress)
        write(begun, "database.main.fake", dump)
        write(begun, "database.parts.fake/1", dump)
        begun.finish(self.manifest(run))

    def make(self, run: str) -> str:
        self.finish(run)
        return self.vault.publish(run)

    def ids(self) -> list[str]:
        return [backup.id for backup in self.vault.backups()]

    def wrong(self, id: str | None = None) -> list[str]:
        return self.vault.verify(id, no_progress, no_check)

    def restored(self, id: str, name: str) -> dict[bytes, tuple[object, ...]]:
        """What a set gives back in an empty folder."""
        return self.put(name, self.vault.open_set(id))

    def put(self, name: str, source: StoredBackup) -> dict[bytes, tuple[object, ...]]:
        target = LocalFiles("target", self.files.root.parent / name)
        target.stage("restore", source.listing("media"), source.fetch, no_check)
        target.apply("restore")
        return trees.look(target.root)


@pytest.fixture(params=list(VAULTS))
def keeper(request: pytest.FixtureRequest, quick_folder: Path) -> Keeper:
    trees.plain(quick_folder / "media")
    harness = VAULTS[request.param](quick_folder / "vault")
    return Keeper(harness.vault, LocalFiles("media", quick_folder / "media"), harness.damage)


def test_a_set_gives_back_what_was_put_in(keeper: Keeper) -> None:
    id = keeper.make("run1")
    original = trees.look(keeper.files.root)
    trees.clear(keeper.files.root)
    assert keeper.restored(id, "again") == original
    source = keeper.vault.open_set(id)
    assert (source.manifest.id, source.manifest.operation, source.manifest.sequence) == (id, "run1", 1)
    assert read(source, "database.main.fake") == read(source, "database.parts.fake/1") == b"a dump"
    assert {entry.raw_path() for entry in source.listing("media")} == set(original)
    assert keeper.wrong() == []


def test_a_part_of_a_listing_is_read_by_its_paths_and_its_contents_are_fetched(keeper: Keeper) -> None:
    id = keeper.make("run1")
    source = keeper.vault.open_set(id, ())
    listing = list(keeper.vault.open_set(id).listing("media"))
    for chosen in (
        Selection([b"a/b/deep.txt", b"empty"]),
        Children(b"a"),
        NamePattern("*.txt", "media"),
        Selection([]),
    ):
        found = list(source.entries("media", chosen))
        assert found == [entry for entry in listing if chosen.wants(entry.raw_path())]
    entry = next(entry for entry in source.entries("media", Selection([b"a/b/deep.txt"])) if entry.kind == "file")
    with tempfile.TemporaryFile() as file:
        source.fetch(entry, file.fileno())
        file.seek(0)
        assert file.read() == b"deep"


def test_an_unfinished_or_unpublished_run_is_never_listed(keeper: Keeper) -> None:
    run = keeper.vault.begin("run1")
    run.store_tree("media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress)
    assert keeper.ids() == []
    with pytest.raises(NotFoundError):
        keeper.vault.publish("run1")
    keeper.finish("run2")
    assert keeper.ids() == [], "finished is not published"
    assert keeper.wrong() == []


def test_a_run_that_failed_half_way_is_never_listed(keeper: Keeper) -> None:
    def fail() -> None:
        raise HoldfastError("the disk is full")

    run = keeper.vault.begin("run1")
    with pytest.raises(HoldfastError):
        run.store_tree("media", keeper.files, keep_vanished=False, check=fail, progress=no_progress)
    with pytest.raises(NotFoundError):
        keeper.vault.publish("run1")
    keeper.vault.abandon("run1")
    assert (keeper.ids(), keeper.vault.damaged(), keeper.wrong()) == ([], [], [])


def test_publish_may_be_repeated(keeper: Keeper) -> None:
    keeper.finish("run1")
    assert keeper.vault.publish("run1") == keeper.vault.publish("run1")
    assert len(keeper.ids()) == 1


def test_abandon_removes_a_run_and_leaves_what_was_published(keeper: Keeper) -> None:
    id = keeper.make("run1")
    keeper.finish("run2")
    for run in ("run2", "run2", "run1", "never heard of"):
        keeper.vault.abandon(run)
    assert keeper.ids() == [id]
    assert keeper.wrong() == []
    with pytest.raises(NotFoundError):
        keeper.vault.publish("run2")
    with pytest.raises(KeyError):
        keeper.vault.run("run2")


def test_begin_replaces_an_earlier_attempt(keeper: Keeper) -> None:
    write(keeper.vault.begin("run1"), "left over", b"x")
    id = keeper.make("run1")
    assert "left over" not in keeper.vault.open_set(id).manifest.files
    assert keeper.restored(id, "again") == trees.look(keeper.files.root)


def test_sets_are_listed_by_sequence(keeper: Keeper) -> None:
    made = [keeper.make(f"run{number}") for number in range(3)]
    assert keeper.ids() == made
    assert len(set(made)) == 3
    assert keeper.vault.new_id() not in made


def test_a_second_pass_takes_what_changed_and_keeps_what_vanished_if_asked(keeper: Keeper) -> None:
    for keep_vanished in (True, False):
        trees.clear(keeper.files.root)
        trees.plain(keeper.files.root)
        run = keeper.vault.begin(f"run-{keep_vanished}")
        run.store_tree("media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress)
        (keeper.files.root / "a-b").unlink()
        (keeper.files.root / "a" / "one.txt").write_bytes(b"changed since")
        (keeper.files.root / "new").write_bytes(b"new")
        run.store_tree("media", keeper.files, keep_vanished=keep_vanished, check=no_check, progress=no_progress)
        found = {entry.path: entry for entry in run.listing("media")}
        assert ("a-b" in found) is keep_vanished
        run.finish(keeper.manifest(run.id))
        keeper.restored(keeper.vault.publish(run.id), f"again-{keep_vanished}")
        again = keeper.files.root.parent / f"again-{keep_vanished}"
        assert (again / "new").read_bytes() == b"new"
        assert (again / "a" / "one.txt").read_bytes() == b"changed since"
        assert (again / "a-b").exists() is keep_vanished


def test_choose_replaces_a_listing(keeper: Keeper) -> None:
    run = keeper.vault.begin("run1")
    run.store_tree("media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress)
    run.choose("media", iter([entry for entry in run.listing("media") if entry.path == "a-b"]))
    run.finish(keeper.manifest("run1"))
    assert set(keeper.restored(keeper.vault.publish("run1"), "again")) == {b"a-b"}


def test_unchanged_contents_are_not_stored_again(keeper: Keeper) -> None:
    first = keeper.vault.begin("run1")
    stored = first.store_tree("media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress)
    assert stored.new_bytes == len(b"one" + b"deep" + b"beside a")
    assert stored.files == len(trees.look(keeper.files.root))
    first.finish(keeper.manifest("run1"))
    keeper.vault.publish("run1")
    (keeper.files.root / "copy").write_bytes(b"deep")
    second = keeper.vault.begin("run2")
    stored = second.store_tree("media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress)
    assert stored.new_bytes == 0


def test_a_finished_run_is_read_and_added_to_before_it_is_published(keeper: Keeper) -> None:
    first = keeper.make("run1")
    (keeper.files.root / "new").write_bytes(b"of the last pass")
    keeper.finish("run2")
    before = trees.look(keeper.files.root)
    assert keeper.ids() == [first], "it is not listed"
    assert keeper.put("unpublished", keeper.vault.open_run("run2")) == before
    for content in (b"of an attempt that died", b"more"):
        run, manifest = keeper.vault.resume("run2")
        run.remove("database.more.fake")
        write(run, "database.more.fake", content)
        run.finish(manifest)
    second = keeper.vault.publish("run2")
    for _ in range(2):
        keeper.vault.remove(first)
    assert keeper.ids() == [second]
    assert keeper.vault.prune([], "run3")["swept"] == 0, "the second one has everything that the first one had"
    assert keeper.wrong() == []
    assert keeper.restored(second, "published") == before
    source = keeper.vault.open_set(second)
    assert (read(source, "database.main.fake"), read(source, "database.more.fake")) == (b"a dump", b"more")
    for name in ("run2", "run7"):
        with pytest.raises(NotFoundError):
            keeper.vault.resume(name)


def test_a_missing_set_is_not_found(keeper: Keeper) -> None:
    keeper.make("run1")
    with pytest.raises(NotFoundError):
        keeper.vault.open_set("2020-01-01-000000")
    with pytest.raises(NotFoundError):
        keeper.vault.pin("2020-01-01-000000", "operator", True)


def test_pins_refuse_prune_until_the_last_is_taken_back(keeper: Keeper) -> None:
    id, other = keeper.make("run1"), keeper.make("run2")
    for by in ("operator", "op-1", "op-1"):
        keeper.vault.pin(id, by, True)
    assert {backup.id: backup.pinned for backup in keeper.vault.backups()} == {id: True, other: False}
    for by in ("operator", "operator", "op-1"):
        with pytest.raises(RefusedError, match=id):
            keeper.vault.check_prune([other, id])
        with pytest.raises(RefusedError, match=id):
            keeper.vault.prune([other, id], "prune1")
        keeper.vault.pin(id, by, False)
        assert keeper.ids() == [id, other], "a refused prune removes nothing"
    assert keeper.vault.prune([id], "prune1")["removed"] == 1
    assert keeper.ids() == [other]


def test_prune_removes_sets_and_what_no_other_set_uses(keeper: Keeper) -> None:
    first = keeper.make("run1")
    (keeper.files.root / "a" / "one.txt").write_bytes(b"the second one")
    second = keeper.make("run2")
    wanted = keeper.restored(second, "before")
    keeper.vault.check_prune([first])
    assert keeper.vault.prune([first], "prune1")["removed"] == 1
    assert keeper.vault.prune([first], "prune1")["removed"] == 0, "prune may be repeated"
    assert keeper.ids() == [second]
    assert keeper.wrong() == []
    assert keeper.restored(second, "after") == wanted
    with pytest.raises(NotFoundError):
        keeper.vault.open_set(first)
    assert keeper.vault.prune([second], "prune2")["swept"] > 0
    assert (keeper.ids(), keeper.wrong()) == ([], [])


def test_a_damaged_set_is_found_refused_and_never_swept(keeper: Keeper) -> None:
    whole, damaged = keeper.make("run1"), keeper.make("run2")
    keeper.damage(damaged, "database.main.fake")
    assert keeper.wrong(whole) == []
    assert len(keeper.wrong(damaged)) == 1
    assert len(keeper.wrong()) == 1
    with pytest.raises(DamagedError):
        keeper.vault.open_set(damaged)
    with pytest.raises(DamagedError):
        keeper.vault.check_prune([whole])
    assert read(keeper.vault.open_set(damaged, ["database.parts.fake/1"]), "database.parts.fake/1") == b"a dump"
    with pytest.raises(DamagedError):
        keeper.vault.open_set(damaged, ["database.main.fake"])
    keeper.damage(damaged, "database.main.fake")
    assert keeper.ids() == [whole, damaged]
    assert keeper.wrong() == []


# --- the backup's own files -----------------------------------------------------------------------------


def test_a_file_exists_once_it_is_written_to_its_end(keeper: Keeper) -> None:
    run = keeper.vault.begin("run1")
    with pytest.raises(HoldfastError):
        with run.write("config.fake") as file:
            file.write(b"half of it")
            raise HoldfastError("the disk is full")
    with pytest.raises(FileNotFoundError):
        run.size_of("config.fake")
    for content in (b"first", b"the second one"):
        write(run, "config.fake", content)
        assert run.size_of("config.fake") == len(content)
    run.finish(keeper.manifest("run1"))
    source = keeper.vault.open_set(keeper.vault.publish("run1"))
    assert set(source.manifest.files) == {"config.fake"}, "nothing of the failed attempt is in it"
    assert read(source, "config.fake") == b"the second one"
    with pytest.raises(DamagedError):
        source.open("database.main.fake")


def test_a_folder_of_files_has_one_size_and_is_removed_as_a_whole(keeper: Keeper) -> None:
    run = keeper.vault.begin("run1")
    for name in ("database.parts.fake/1", "database.parts.fake/2", "code.fake"):
        write(run, name, b"12345")
    assert run.size_of("database.parts.fake") == 10
    for _ in range(2):
        run.remove("database.parts.fake")
    run.finish(keeper.manifest("run1"))
    assert set(keeper.vault.open_set(keeper.vault.publish("run1")).manifest.files) == {"code.fake"}


def test_what_a_vault_says_of_itself_is_so(keeper: Keeper) -> None:
    can = keeper.vault.capabilities
    id = keeper.make("run1")
    assert keeper.vault.exists()
    assert keeper.vault.kind and keeper.vault.location
    source, run = keeper.vault.open_set(id), keeper.vault.begin("run2")
    assert (source.place_of("database.main.fake") is not None) is can.in_place
    assert (run.place_of("database.main.fake") is not None) is can.in_place
    place = run.place_of("database.more.fake")
    if place is not None:
        place.write_bytes(b"by a program")
        assert run.size_of("database.more.fake") == len(b"by a program")
    if can.links:
        run.link("database.main.fake", id)
        assert run.size_of("database.main.fake") == len(b"a dump")
    run.finish(keeper.manifest("run2"))
    written = set(keeper.vault.open_set(keeper.vault.publish("run2")).manifest.files)
    expected = {"database.more.fake": can.in_place, "database.main.fake": can.links}
    assert written == {name for name, is_there in expected.items() if is_there}
    if can.folder is not None:
        assert can.folder.is_dir() and keeper.vault.free_bytes() is not None
