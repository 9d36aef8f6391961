"""What patches of a package promise: all or nothing, nothing outside the tree, and a way back to the same bytes."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.errors import HoldfastError, RefusedError, StepError
from holdfast.model.packages import Package, Patch
from holdfast.system.host import Host
from tests.contract.test_packages import commit, git

FILES = {"app.py": "one\ntwo\nthree\n", "sub/deep.txt": "deep\n", "run.sh": "#!/bin/sh\n", "plain.txt": "plain\n"}
AT = "2026-12-01T10:00:00Z"


def diff(path: str, old: str | None, new: str | None, *, strip: int = 1) -> str:
    """Return a patch of one file; None: it does not exist."""
    before, after = ("a/", "b/") if strip else ("", "")
    lines = difflib.unified_diff(
        (old or "").splitlines(keepends=True),
        (new or "").splitlines(keepends=True),
        f"{before}{path}" if old is not None else "/dev/null",
        f"{after}{path}" if new is not None else "/dev/null",
    )
    head = ""
    if strip and old is None:
        head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n"
    if strip and new is None:
        head = f"diff --git a/{path} b/{path}\ndeleted file mode 100644\n"
    return head + "".join(lines)


FIX = diff("app.py", FILES["app.py"], "one\nTWO\nthree\n")


class Store:
    """A store of packages over a repository of one commit."""

    def __init__(self, folder: Path, files: Mapping[str, str] = FILES, **options: object) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.repository.mkdir()
        git(self.repository, "init", "--quiet", "--initial-branch=main")
        self.commit = commit(self.repository, files, "one")
        self.packages = ArchivePackages(folder / "packages", self.repository, Host(), **options)  # type: ignore[arg-type]

    def built(self) -> Package:
        return self.packages.build(self.commit, "v1", "run")

    def patched(self, package: Package, *texts: str, strip: int | None = None) -> Package:
        return self.packages.patch(package, [self.read(package, one, strip) for one in texts], [], "run", applied_at=AT)

    def read(self, package: Package, text: str, strip: int | None = None) -> Patch:
        fit = self.packages.fit_patch(package, "fix.patch", text.encode(), strip, "look")
        assert not fit.why_not and not fit.contained, fit
        return fit.patch

    def why_not(self, package: Package, text: str, strip: int | None = None) -> str:
        """Return why a patch is refused, wherever that is found out; nothing is left of the attempt."""
        try:
            fit = self.packages.fit_patch(package, "fix.patch", text.encode(), strip, "look")
        except RefusedError as error:
            return error.what
        if not fit.why_not:
            with pytest.raises(HoldfastError) as raised:
                self.packages.patch(package, [fit.patch], [], "run", applied_at=AT)
            self.packages.abandon("run")
            return raised.value.what
        with pytest.raises(RefusedError):
            self.packages.patch(package, [fit.patch], [], "run", applied_at=AT)
        self.packages.abandon("run")
        return fit.why_not

    def release(self, package: Package) -> dict[str, tuple[object, ...]]:
        """Return every byte, mode and time of an unpacked release, but for the folder that keeps the patches."""
        target = self.folder / "release"
        self.packages.unpack(package, target, {})
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(target.rglob("*")):
            name = str(path.relative_to(target))
            if name.startswith(".holdfast"):
                continue
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            found[name] = (content, status.st_mode, int(status.st_mtime))
        shutil.rmtree(target)
        return found


@pytest.fixture
def store(quick_folder: Path) -> Store:
    return Store(quick_folder)


def test_a_patch_makes_a_package_of_its_own(store: Store) -> None:
    base = store.built()
    patched = store.patched(base, FIX)
    assert patched.id.startswith(f"{base.id}+p") and patched.commit == base.commit
    assert [(one.name, one.strip, one.paths) for one in patched.patches] == [("fix.patch", 1, ("app.py",))]
    assert store.release(patched)["app.py"][0] == b"one\nTWO\nthree\n"
    assert store.release(base)["app.py"][0] == b"one\ntwo\nthree\n"
    assert {one.id for one in store.packages.packages()} == {base.id, patched.id}
    assert store.packages.patch_text(patched, patched.patches[0], "look") == FIX.encode()


def test_the_patches_in_a_release_are_for_holdfast_alone(store: Store) -> None:
    target = store.folder / "release"
    store.packages.unpack(store.patched(store.built(), FIX), target, {})
    assert (target / ".holdfast-patches").stat().st_mode & 0o077 == 0


CHANGES = {
    "a changed file": FIX,
    "a new file in a new folder": diff("new/one.txt", None, "new\n"),
    "a removed file": diff("plain.txt", "plain\n", None),
    "the last file of a folder": diff("sub/deep.txt", "deep\n", None),
    "a mode": "diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n",
    "a rename": "diff --git a/plain.txt b/other.txt\nsimilarity index 100%\n"
    "rename from plain.txt\nrename to other.txt\n",
    "a new link": "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n"
    "+app.py\n\\ No newline at end of file\n",
    "several files": FIX + diff("plain.txt", "plain\n", "fancy\n") + diff("more.txt", None, "x\n"),
}


@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("with_base", [True, False], ids=["base kept", "base gone"])
def test_apply_then_revert_is_the_identity(store: Store, text: str, with_base: bool) -> None:
    base = store.built()
    before = store.release(base)
    patched = store.patched(base, text)
    assert store.release(patched) != before
    if not with_base:
        store.packages.remove(base.id)
    back = store.packages.patch(patched, [], [patched.patches[0].id], "run", applied_at=AT)
    assert (back.id, back.content, back.patches) == (base.id, base.content, ())
    assert store.release(back) == before


def test_patches_are_taken_back_in_any_order_if_they_do_not_build_on_each_other(store: Store) -> None:
    base = store.built()
    other = diff("plain.txt", "plain\n", "fancy\n")
    both = store.patched(store.patched(base, FIX), other)
    only_other = store.packages.patch(both, [], [both.patches[0].id], "run", applied_at=AT)
    assert store.release(only_other) == store.release(store.patched(base, other))
    assert store.packages.patch(only_other, [], [both.patches[1].id], "run", applied_at=AT).content == base.content


def test_a_patch_on_which_another_one_builds_stays(store: Store) -> None:
    first = store.patched(store.built(), FIX)
    both = store.patched(first, diff("app.py", "one\nTWO\nthree\n", "one\nTWICE\nthree\n"))
    assert store.packages.why_not_reverted(both, both.patches[0], "look")
    with pytest.raises(RefusedError, match="cannot be taken back"):
        store.packages.patch(both, [], [both.patches[0].id], "run", applied_at=AT)
    store.packages.abandon("run")
    assert store.packages.why_not_reverted(both, both.patches[1], "look") == ""


def test_a_patched_file_does_not_have_the_time_of_the_unpatched_one(store: Store) -> None:
    """A compiled module is recognised by time and size of its source."""
    base = store.built()
    one = store.patched(base, FIX)
    two = store.patched(base, diff("app.py", FILES["app.py"], "one\ntwo\nTHREE\n"))
    times = {store.release(package)["app.py"][2] for package in (base, one, two)}
    assert len(times) == 3


# --- all or nothing ------------------------------------------------------------------------------------

HOSTILE = {
    "an absolute path": "--- /etc/passwd\n+++ /etc/passwd\n@@ -0,0 +1 @@\n+x\n",
    "another absolute path": "--- /dev/null\n+++ /etc/holdfast-was-here\n@@ -0,0 +1 @@\n+x\n",
    "a path above": diff("../outside.txt", None, "x\n"),
    "a path above in the middle": diff("sub/../../outside.txt", None, "x\n"),
    "a rename to above": "diff --git a/plain.txt b/../outside.txt\nsimilarity index 100%\nrename from plain.txt\n"
    "rename to ../outside.txt\n",
    "git's own folder": diff(".git/hooks/post-checkout", None, "x\n"),
    "Holdfast's own folder": diff(".holdfast-patches/record.json", None, "{}\n"),
    "Holdfast's marker": diff(".holdfast-release.json", None, "{}\n"),
    "the release's configuration": diff("holdfast.toml", None, "[tasks]\n"),
    "through a link": diff("out/outside.txt", None, "x\n"),
    "through a link of its own": "diff --git a/way b/way\nnew file mode 120000\n--- /dev/null\n+++ b/way\n"
    "@@ -0,0 +1 @@\n+..\n\\ No newline at end of file\n" + diff("way/outside.txt", None, "x\n"),
    "a link that leaves the release": "diff --git a/way b/way\nnew file mode 120000\n--- /dev/null\n+++ b/way\n"
    "@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n",
    "no patch at all": "hello\n",
    "nothing": "",
    "binary rubbish": "GIT binary patch\nliteral 10\n\x00\x01\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_patch_is_refused_and_nothing_is_left(store: Store, text: str) -> None:
    target = store.folder / "target"
    target.mkdir()
    (store.repository / "out").symlink_to("sub")
    git(store.repository, "add", "--all")
    git(store.repository, "commit", "--quiet", "--message", "with a link")
    store.commit = git(store.repository, "rev-parse", "HEAD")
    base = store.built()
    before = sorted(str(path) for path in store.folder.rglob("*") if "repository" not in path.parts)
    for strip in (None, 1):
        assert store.why_not(base, text, strip)
    assert sorted(str(path) for path in store.folder.rglob("*") if "repository" not in path.parts) == before
    assert not Path("/etc/holdfast-was-here").exists()


@pytest.mark.parametrize(
    "text",
    [
        FIX + diff("plain.txt", "something else\n", "fancy\n"),
        FIX + diff("none.txt", "not there\n", "x\n"),
        FIX + diff("plain.txt", None, "it exists already\n"),
        diff("app.py", "one\ntwo\nother\n", "ONE\ntwo\nOTHER\n"),
    ],
    ids=["last file", "missing file", "existing file", "last line of a hunk"],
)
def test_a_patch_that_fails_at_its_end_changes_nothing(store: Store, text: str) -> None:
    base = store.built()
    assert store.why_not(base, text)
    assert store.packages.packages() == [base]


def test_context_has_to_match_exactly(store: Store) -> None:
    text = "--- a/app.py\n+++ b/app.py\n@@ -1,3 +1,3 @@\n zero\n-two\n+TWO\n three\n"
    assert store.why_not(store.built(), text)


@pytest.mark.parametrize("strip", [None, 0])
def test_a_patch_without_leading_parts(store: Store, strip: int | None) -> None:
    text = diff("sub/deep.txt", "deep\n", "deeper\n", strip=0)
    patched = store.patched(store.built(), text, strip=strip)
    assert patched.patches[0].strip == 0
    assert store.release(patched)["sub/deep.txt"][0] == b"deeper\n"


def test_a_patch_that_is_contained_is_recognised(store: Store) -> None:
    patched = store.patched(store.built(), FIX)
    assert store.packages.fit_patch(patched, "fix.patch", FIX.encode(), None, "look").contained
    assert not store.packages.fit_patch(store.built(), "fix.patch", FIX.encode(), None, "look").contained


def test_the_settings_of_a_user_change_nothing(
    store: Store, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = store.built()
    (quick_folder / ".gitconfig").write_text("[apply]\nwhitespace = error-all\n[core]\nautocrlf = true\n")
    monkeypatch.setenv("HOME", str(quick_folder))
    text = diff("app.py", FILES["app.py"], "one\ntwo \t \nthree\n")
    assert store.release(store.patched(base, text))["app.py"][0] == b"one\ntwo \t \nthree\n"


def test_a_store_inside_a_repository_is_patched_too(quick_folder: Path) -> None:
    """git silently skips paths when it takes the tree for a folder of a repository above it."""
    git(quick_folder, "init", "--quiet")
    store = Store(quick_folder)
    assert store.release(store.patched(store.built(), FIX))["app.py"][0] == b"one\nTWO\nthree\n"


def test_what_a_killed_look_left_is_removed_by_the_next_one(store: Store) -> None:
    package = store.built()
    places = [store.folder / "packages" / "tmp" / name for name in ("look-999999999-ab", f"look-{os.getpid()}-cd")]
    for place in places:
        place.mkdir(parents=True)
    store.read(package, FIX)
    assert [place.exists() for place in places] == [False, True], "that of a running process stays"


# --- patches of the repository, at build time ----------------------------------------------------------------


def with_patches(folder: Path, patches: Mapping[str, str], **options: object) -> Store:
    files = {**FILES, **{f"patches/{name}": text for name, text in patches.items()}}
    return Store(folder, files, **{"patches": "patches", **options})


def test_patches_of_the_repository_are_applied_in_the_order_of_their_names(quick_folder: Path) -> None:
    second = diff("app.py", "one\nTWO\nthree\n", "one\nTWICE\nthree\n")
    store = with_patches(quick_folder, {"20-second.patch": second, "10-first.patch": FIX, "README": "no patch"})
    package = store.built()
    assert store.release(package)["app.py"][0] == b"one\nTWICE\nthree\n"
    assert package.patches == (), "they belong to the commit"


def test_they_are_applied_after_the_build_and_before_the_assets(quick_folder: Path) -> None:
    made = diff("vendor.txt", "made by the build\n", "and patched\n", strip=0)
    build = [["sh", "-c", "echo made by the build >vendor.txt"]]
    assets = [["cp", "vendor.txt", "asset.txt"]]
    store = with_patches(quick_folder, {"vendor.patch": made}, build=build, assets=assets)
    assert store.release(store.built())["asset.txt"][0] == b"and patched\n"


def test_a_patch_of_the_repository_that_does_not_apply_fails_the_build_by_name(quick_folder: Path) -> None:
    store = with_patches(quick_folder, {"10-good.patch": FIX, "20-bad.patch": diff("none.txt", "x\n", "y\n")})
    with pytest.raises(StepError, match=r"patches/20-bad\.patch does not apply"):
        store.built()
    store.packages.abandon("run")
    assert store.packages.packages() == []


def test_a_patch_that_the_build_applied_itself_is_left_out(quick_folder: Path) -> None:
    """As by patch-package, or a plugin of Composer."""
    store = with_patches(quick_folder, {"fix.patch": FIX}, build=[["git", "apply", "patches/fix.patch"]])
    assert store.release(store.built())["app.py"][0] == b"one\nTWO\nthree\n"


def test_a_patch_that_is_a_link_is_refused(quick_folder: Path) -> None:
    store = with_patches(quick_folder, {"real.txt": FIX})
    (store.repository / "patches" / "link.patch").symlink_to("real.txt")
    git(store.repository, "add", "--all")
    git(store.repository, "commit", "--quiet", "--message", "a link")
    store.commit = git(store.repository, "rev-parse", "HEAD")
    with pytest.raises(StepError, match="is a link"):
        store.built()


# --- the same reference gives the same content ----------------------------------------------------------------

BUILD = [["sh", "-c", "date +%N >made.tmp && rm made.tmp && mkdir out && cp app.py out/copy.py && echo x >>plain.txt"]]


def test_a_second_build_has_the_same_content(quick_folder: Path) -> None:
    store = with_patches(quick_folder, {"fix.patch": FIX}, build=BUILD)
    first = store.built()
    store.packages.remove(first.id)
    os.utime(store.repository / "app.py")
    second = store.built()
    assert first.content and (first.content, first.digest) == (second.content, second.digest)


def test_a_build_without_assets_is_another_package(quick_folder: Path) -> None:
    store = Store(quick_folder, assets=[["touch", "asset"]])
    whole = store.built()
    bare = store.packages.build(store.commit, "v1", "run", id="bare", assets=False)
    assert "asset" in store.release(whole) and "asset" not in store.release(bare)
    assert whole.recipe != bare.recipe


def test_another_name_for_the_same_build_has_the_same_content(store: Store) -> None:
    first = store.built()
    second = store.packages.build(store.commit, "v1", "run", id="v1-20261201", note="For the sale")
    assert (second.id, second.note, second.digest) == ("v1-20261201", "For the sale", first.digest)
    assert store.release(second) == store.release(first)


def test_the_commands_of_a_build_know_the_time_of_the_commit(quick_folder: Path) -> None:
    store = Store(quick_folder, build=[["sh", "-c", "echo $SOURCE_DATE_EPOCH >epoch"]])
    stamp = git(store.repository, "show", "--no-patch", "--format=%ct", "HEAD")
    assert store.release(store.built())["epoch"][0] == f"{stamp}\n".encode()
