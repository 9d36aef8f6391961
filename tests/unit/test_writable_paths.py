"""What becomes of the writable paths of a new release."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import RefusedError
from holdfast.steps import release_paths
from tests.unit.applications import make_app


def modes(release: Path) -> dict[str, str]:
    return {
        str(path.relative_to(release)): oct(stat.S_IMODE(path.lstat().st_mode))[2:]
        for path in sorted(release.rglob("*"))
        if not path.is_symlink()
    }


@pytest.fixture
def release(folder: Path) -> Path:
    made = folder / "releases" / "r1"
    (made / "var" / "deep").mkdir(parents=True)
    for name in ("var/plain", "var/deep/program", "other"):
        (made / name).write_text(name)
        (made / name).chmod(0o644)
    (made / "var/deep/program").chmod(0o755)
    for name in ("var", "var/deep"):
        (made / name).chmod(0o755)
    return made


def apply(folder: Path, release: Path, *entries: str | dict[str, Any]) -> None:
    app = make_app(folder, source={"writable": list(entries)})
    try:
        release_paths.make_writable(app.context, release)
    finally:
        app.close()


def own_group() -> str:
    return grp.getgrgid(os.getegid()).gr_name


def test_only_the_named_path_gets_the_mode(folder: Path, release: Path) -> None:
    before = modes(release)
    apply(folder, release, {"path": "var", "mode": "2775"})
    assert modes(release) == {**before, "var": "2775"}


def test_with_recursive_everything_below_gets_it_and_files_what_is_right_for_files(folder: Path, release: Path) -> None:
    apply(folder, release, {"path": "var", "recursive": True, "mode": "2775"})
    assert modes(release) == {
        "other": "644",
        "var": "2775",
        "var/deep": "2775",
        "var/deep/program": "775",
        "var/plain": "664",
    }
    again = modes(release)
    apply(folder, release, {"path": "var", "recursive": True, "mode": "2775"})
    assert modes(release) == again


def test_a_group_may_write_and_a_missing_path_is_created(folder: Path, release: Path) -> None:
    apply(folder, release, {"path": "new/cache", "group": own_group()}, {"path": "var/plain", "group": own_group()})
    found = modes(release)
    assert (found["new"], found["new/cache"], found["var/plain"]) == ("755", "775", "664")
    assert (release / "new/cache").stat().st_gid == os.getegid()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another group is given")
def test_another_group_gets_the_tree_and_the_owner_stays(folder: Path, release: Path) -> None:
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, os.getegid()))
    apply(folder, release, {"path": "var", "recursive": True, "group": group.gr_name})
    for path in (release / "var", *(release / "var").rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), group.gr_gid)
    assert (release / "other").stat().st_gid != group.gr_gid


def test_no_link_is_followed(folder: Path, release: Path) -> None:
    outside = folder / "outside"
    outside.mkdir(mode=0o700)
    (outside / "secret").write_text("secret")
    (outside / "secret").chmod(0o600)
    (release / "var" / "file").symlink_to(outside / "secret")
    (release / "var" / "folder").symlink_to(outside)
    (release / "linked").symlink_to(outside)
    apply(folder, release, {"path": "var", "recursive": True, "group": own_group(), "mode": "0777"})
    for path in ("linked", "linked/below"):
        with pytest.raises(RefusedError, match="is a link"):
            apply(folder, release, {"path": path, "mode": "0777"})
        with pytest.raises(RefusedError, match="is a link"):
            apply(folder, release, path)
    assert oct(outside.stat().st_mode)[-3:] == "700" and oct((outside / "secret").stat().st_mode)[-3:] == "600"


def test_a_group_that_does_not_exist_is_refused_before_anything_changes(folder: Path) -> None:
    app = make_app(folder, source={"writable": [{"path": "var", "group": "no-such-group"}]})
    try:
        with pytest.raises(RefusedError, match="there is no group 'no-such-group' on this machine"):
            release_paths.refuse_groups(app.context)
    finally:
        app.close()
