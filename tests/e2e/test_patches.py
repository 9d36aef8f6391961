"""Patches of the running release through the command line: tried, applied, taken back, carried on, left behind."""

from __future__ import annotations

import difflib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import kept, terminal
from tests.e2e.cli import run, run_json, succeed
from tests.proof import patience
from tests.releases import add as add_release
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as found:
        yield found


def current(site: Site) -> Path:
    return (site.app_folder / "current").resolve()


def write_patch(site: Site, name: str, path: str, old: str, new: str, *, prefixes: bool = True) -> Path:
    """Write a patch that replaces a text in a file of the running release."""
    before = (current(site) / path).read_text()
    assert old in before
    names = (f"a/{path}", f"b/{path}") if prefixes else (path, path)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), before.replace(old, new).splitlines(keepends=True), *names
    )
    target = site.folder / name
    target.write_text("".join(lines))
    return target


def fix(site: Site, version: str = "fixed", *, old: str = '"v1"') -> Path:
    """Write a patch that visitors see: the version that the guestbook answers with."""
    return write_patch(site, f"{version}.patch", "settings.json", old, f'"{version}"')


def everything(site: Site) -> dict[str, tuple[bytes, int, int]]:
    """Return what lies in releases and in the store of packages, to the last byte."""
    found = {}
    for folder in (site.app_folder / "releases", site.state / "packages"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.suffix != ".pyc":
                status = path.stat()
                found[str(path)] = (path.read_bytes(), status.st_mode, status.st_mtime_ns)
    return found


def tree(site: Site) -> dict[str, tuple[bytes, int, int]]:
    """Return content, mode and time of each file of the running release, but for what Holdfast adds."""
    place = current(site)
    return {
        str(path.relative_to(place)): (path.read_bytes(), path.stat().st_mode, int(path.stat().st_mtime))
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.is_symlink() and ".holdfast" not in str(path.relative_to(place))
        if path.suffix != ".pyc"
    }


def ids(site: Site) -> list[str]:
    return [one["id"] for one in run_json(site, "patch", "list")["data"]["patches"]]


def version(site: Site) -> str:
    found: str = site.get("/")[1]["version"]
    return found


def test_a_dry_run_is_the_default_and_changes_no_byte(site: Site) -> None:
    patch = fix(site)
    before = (everything(site), site.fingerprint())
    printed = succeed(site, "patch", "apply", str(patch))
    assert "applies (-p1)" in printed and "settings.json" in printed and "--force" in printed
    assert run_json(site, "patch", "apply", str(patch))["data"]["paths"] == ["settings.json"]
    assert (everything(site), site.fingerprint()) == before
    assert version(site) == "v1" and ids(site) == []
    steps = run_json(site, "patch", "apply", str(patch), "--force", "--dry-run")["data"]["steps"]
    assert "package.patch" in [step["name"] for step in steps]
    assert (everything(site), site.fingerprint()) == before


def test_apply_list_view_and_revert(site: Site) -> None:
    before, rows = tree(site), site.fingerprint()
    patch = fix(site)
    done = run(site, "patch", "apply", str(patch), "--force")
    assert done.returncode == 0, done.stderr
    assert "maintenance page" not in done.stdout, "the new services started next to the old ones"
    assert version(site) == "fixed"
    (listed,) = run_json(site, "patch", "list")["data"]["patches"]
    assert (listed["name"], listed["paths"], listed["strip"]) == ("fixed.patch", ["settings.json"], 1)
    printed = succeed(site, "patch", "list")
    assert listed["id"][:12] in printed and "fixed.patch" in printed
    patch.unlink()
    for reference in (listed["id"][:8], listed["id"], "fixed.patch"):
        assert '+ "version": "fixed"' in succeed(site, "patch", "view", reference)
    printed = succeed(site, "patch", "revert", listed["id"][:8])
    assert "can be taken back" in printed and version(site) == "fixed"
    succeed(site, "patch", "revert", listed["id"][:8], "--force")
    assert version(site) == "v1" and ids(site) == []
    assert tree(site) == before, "apply then revert is the identity"
    assert site.fingerprint() == rows


def test_a_patched_release_survives_a_restart_and_is_undone_by_a_switch(site: Site) -> None:
    succeed(site, "patch", "apply", str(fix(site)), "--force")
    succeed(site, "service", "restart")
    assert version(site) == "fixed" and len(ids(site)) == 1
    succeed(site, "rollback")
    assert version(site) == "v1" and ids(site) == []
    releases = run_json(site, "release", "list")["data"]["releases"]
    assert len(releases) == 2 and len({one["commit"] for one in releases}) == 1
    succeed(site, "rollback")
    assert version(site) == "fixed" and len(ids(site)) == 1


def test_a_patch_that_fails_at_its_last_hunk_changes_no_byte(site: Site) -> None:
    patch = fix(site)
    patch.write_text(patch.read_text() + "--- a/app.py\n+++ b/app.py\n@@ -1 +1 @@\n-not the first line\n+x\n")
    before = (everything(site), site.fingerprint())
    for force in ([], ["--force"]):
        done = run(site, "patch", "apply", str(patch), *force)
        assert done.returncode == 4 and "app.py: patch does not apply" in done.stderr
        assert "Nothing was changed" in done.stderr
    assert (everything(site), site.fingerprint()) == before and version(site) == "v1"


def test_a_second_apply_is_refused(site: Site) -> None:
    patch = fix(site)
    succeed(site, "patch", "apply", str(patch), "--force")
    done = run(site, "patch", "apply", str(patch), "--force")
    assert done.returncode == 4 and "already applied" in done.stderr and "holdfast patch revert" in done.stderr
    patch.write_text(patch.read_text().replace("a/settings.json", "a/settings.json\tin other words"))
    done = run(site, "patch", "apply", str(patch), "--force")
    assert done.returncode == 4 and "contains all changes" in done.stderr
    assert len(ids(site)) == 1


def test_a_patch_without_leading_parts(site: Site) -> None:
    patch = write_patch(site, "plain.patch", "settings.json", '"v1"', '"plain"', prefixes=False)
    assert run(site, "patch", "apply", str(patch), "-p", "1").returncode == 4
    succeed(site, "patch", "apply", str(patch), "-p", "0", "--force")
    assert version(site) == "plain"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../../../outside", "not a file of the application"),
        ("/etc/holdfast-was-here", "not a file of the application"),
        ("holdfast.toml", "which a patch may not do"),
    ],
)
def test_a_patch_that_leaves_the_release_is_refused(site: Site, path: str, said: str) -> None:
    patch = site.folder / "hostile.patch"
    patch.write_text(f"--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+x\n")
    before = (everything(site), site.fingerprint())
    done = run(site, "patch", "apply", str(patch), "--force")
    assert done.returncode == 4 and said in done.stderr, done.stderr
    assert (everything(site), site.fingerprint()) == before


@pytest.mark.parametrize("command", ["view", "revert"])
def test_an_unknown_patch_is_named(site: Site, command: str) -> None:
    succeed(site, "patch", "apply", str(fix(site)), "--force")
    done = run(site, "patch", command, "fixe.patch")
    assert done.returncode == 4 and "fixed.patch" in done.stderr and "holdfast patch list" in done.stderr
    assert run(site, "patch", "apply", str(site.folder / "none.patch")).returncode == 4


def test_a_patch_on_which_another_builds_is_not_taken_back(site: Site) -> None:
    succeed(site, "patch", "apply", str(fix(site)), "--force")
    succeed(site, "patch", "apply", str(fix(site, "better", old='"fixed"')), "--force")
    first, second = ids(site)
    done = run(site, "patch", "revert", first, "--force")
    assert done.returncode == 4 and "later patches" in done.stderr and version(site) == "better"
    for id in (second, first):
        succeed(site, "patch", "revert", id, "--force")
    assert version(site) == "v1"


def test_a_patched_release_that_does_not_answer_is_undone(site: Site) -> None:
    patch = write_patch(site, "breaks.patch", "settings.json", '"broken": false', '"broken": true')
    done = run(site, "patch", "apply", str(patch), "--force")
    assert done.returncode == 6 and "answered 500" in done.stderr and "Everything was undone" in done.stderr
    assert version(site) == "v1" and ids(site) == []


def test_a_backup_of_a_patched_release_brings_the_patch_back(site: Site) -> None:
    site.config.write_text(site.config.read_text().replace("[backup]\n", '[backup]\ncode = "commit"\n'))
    succeed(site, "patch", "apply", str(fix(site)), "--force")
    succeed(site, "backup", "create")
    patched = run_json(site, "release", "list")["data"]["releases"][0]
    succeed(site, "patch", "revert", "fixed.patch", "--force")
    succeed(site, "upgrade", "v2")
    for path in (site.state / "packages").glob("*+p*"):
        subprocess.run(["rm", "-r", str(path)], check=True)
    subprocess.run(["rm", "-r", patched["path"]], check=True)
    backup = next(
        one["id"] for one in run_json(site, "backup", "list")["data"]["backups"] if "+p" in json.dumps(one["release"])
    )
    done = run(site, "backup", "restore", backup, "--no-safety")
    assert done.returncode == 0, done.stderr
    assert version(site) == "fixed" and len(ids(site)) == 1


def test_patches_in_maintenance_mode_where_two_webs_cannot_run(site: Site) -> None:
    site.config.write_text(
        site.config.read_text() + '\n[services.app]\nkind = "backend"\ncommand = ["sleep", "9999"]\n'
    )
    succeed(site, "upgrade", "v1", "--again")
    done = run(site, "patch", "apply", str(fix(site)), "--force")
    assert done.returncode == 0, done.stderr
    assert "visitors saw the maintenance page" in done.stdout and version(site) == "fixed"


# --- upgrades ---------------------------------------------------------------------------------------------------


@pytest.fixture
def patched(site: Site) -> Site:
    """Two patches: v7 contains the first one and not the second, which v8 contradicts."""
    last = (current(site) / "manage.py").read_text().splitlines()[-1]
    other = write_patch(site, "other.patch", "manage.py", last, f"{last}\n# patched")
    for patch in (_marked(site), other):
        succeed(site, "patch", "apply", str(patch), "--force")
    _release(site, "v7", "v2", "app.py", lambda found: f"# marked\n{found}")
    _release(site, "v8", "v2", "manage.py", lambda found: found.replace(last, "# another end"))
    return site


def _marked(site: Site) -> Path:
    line = (current(site) / "app.py").read_text().splitlines()[0]
    return write_patch(site, "contained.patch", "app.py", line, f"# marked\n{line}")


def _release(site: Site, tag: str, base: str, path: str, change: Callable[[str], str]) -> None:
    add_release(site, tag, base, "0002_mood", _show(site, base, "migrations/0002_mood.py"))
    git = ["git", "-C", str(site.repository), "-c", "user.name=T", "-c", "user.email=t@example.invalid"]
    file = site.repository / path
    file.write_text(change(file.read_text()))
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message", tag], ["tag", "--force", tag]):
        subprocess.run([*git, *arguments], check=True, capture_output=True, timeout=patience.limit(30))


def _show(site: Site, commit: str, path: str) -> str:
    argv = ["git", "-C", str(site.repository), "show", f"{commit}:{path}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=patience.limit(30)).stdout


def test_without_consent_an_upgrade_stops_before_any_change(patched: Site) -> None:
    before = (everything(patched), patched.fingerprint())
    for arguments in (["upgrade", "v2"], ["upgrade", "v2", "--rolling"], ["package", "deploy", "v1-x"]):
        done = run(patched, *arguments)
        assert done.returncode == 4
        if arguments[0] == "upgrade":
            assert "--reapply-patches" in done.stderr and "--skip-check-patches" in done.stderr
            assert "contained.patch, other.patch" in done.stderr
    assert (everything(patched), patched.fingerprint()) == before
    done = run(patched, "upgrade", "v2", "--reapply-patches", "--skip-check-patches")
    assert done.returncode == 2


def test_an_upgrade_leaves_patches_behind_with_consent(patched: Site) -> None:
    succeed(patched, "upgrade", "v2", "--skip-check-patches")
    assert version(patched) == "v2" and ids(patched) == []
    assert "patches" not in succeed(patched, "upgrade", "v5")


def test_an_upgrade_applies_again_what_the_new_release_does_not_contain(patched: Site) -> None:
    done = run(patched, "upgrade", "v7", "--reapply-patches")
    assert done.returncode == 0, done.stderr
    assert "contains the patch contained.patch already" in done.stderr
    assert version(patched) == "v7"
    assert [one["name"] for one in run_json(patched, "patch", "list")["data"]["patches"]] == ["other.patch"]
    assert (current(patched) / "manage.py").read_text().rstrip().endswith("# patched")


def test_a_patch_that_does_not_fit_the_new_release_stops_the_upgrade_before_the_page(patched: Site) -> None:
    before = patched.fingerprint()
    done = run(patched, "upgrade", "v8", "--reapply-patches")
    assert done.returncode == 4, done.stderr
    assert "other.patch does not apply" in done.stderr and "holdfast patch revert" in done.stderr
    assert patched.fingerprint() == before and version(patched) == "v1" and len(ids(patched)) == 2
    operation = run_json(patched, "log", "show", "latest")["data"]
    assert not any(step["name"] == "gate.close" and step["state"] != "pending" for step in operation["steps"])


def test_a_deploy_whose_package_contains_all_patches_asks_nothing(site: Site) -> None:
    succeed(site, "patch", "apply", str(_marked(site)), "--force")
    _release(site, "v7", "v2", "app.py", lambda found: f"# marked\n{found}")
    succeed(site, "package", "build", "v7", "with-the-mark")
    done = run(site, "package", "deploy", "with-the-mark")
    assert done.returncode == 0, done.stderr
    assert "contains the patches of the running one already" in done.stderr
    assert version(site) == "v7" and ids(site) == []


def test_a_terminal_is_asked_about_patches(patched: Site) -> None:
    argv = terminal.holdfast("upgrade", "v7", "--config", str(patched.config))
    shown, code = terminal.run(argv, 120, folder=patched.folder, typed="y\n")
    assert code == 0, shown.lines
    text = "\n".join(shown.lines)
    assert "may be missing in the new one" in text and "contained.patch: app.py" in text
    assert [one["name"] for one in run_json(patched, "patch", "list")["data"]["patches"]] == ["other.patch"]


def test_a_terminal_can_say_no_to_both(patched: Site) -> None:
    argv = terminal.holdfast("upgrade", "v2", "--config", str(patched.config))
    shown, code = terminal.run(argv, 120, folder=patched.folder, typed="n\nn\n")
    assert code == 130, shown.lines
    assert version(patched) == "v1" and len(ids(patched)) == 2
