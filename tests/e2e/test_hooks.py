"""Hooks: when each runs, what it is told, and what its failure does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.schema.hooks import BEFORE, Hooks
from tests import kept
from tests.e2e.cli import run, run_json, start, succeed
from tests.proof import patience
from tests.releases import add_files
from tests.site import Site

_NOTES = """
import json, os, sys, pathlib
root = pathlib.Path(os.environ["HOLDFAST_ROOT"])
gate = json.loads((root.parent / "state/front/gate.json").read_text())
facts = {k.removeprefix("HOLDFAST_").lower(): v for k, v in os.environ.items() if k.startswith("HOLDFAST_")}
facts |= {"cwd": os.getcwd(), "closed": bool(gate.get("operation")), "current": os.readlink(root / "current"),
          "worker": bool(list((root.parent / "state/supervisor/programs").glob("mail-*.started"))),
          "more": sys.argv[1:]}
with open(root.parent / "hooks.log", "a") as file:
    file.write(json.dumps(facts) + "\\n")
"""
_ALL = tuple(Hooks.__struct_fields__)


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        (lent.app_folder / "note.py").write_text(_NOTES)
        yield lent


def add(site: Site, text: str) -> None:
    site.config.write_text(f"{site.config.read_text()}\n{text}\n")


def note(*names: str) -> str:
    """Return a section with these hooks, each of which writes down what it sees."""
    return "[hooks]\n" + "\n".join(f'{name} = ["python3", "{{root}}/note.py", "a b"]' for name in names)


def noted(site: Site) -> list[dict[str, Any]]:
    path = site.folder / "hooks.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def names(site: Site) -> list[str]:
    return [one["hook"] for one in noted(site)]


def test_an_upgrade_runs_them_in_their_order_and_tells_each_its_operation(site: Site) -> None:
    add(site, '[services.mail]\ncommand = ["sleep", "86400"]\nsettle_seconds = 0.05')
    succeed(site, "service", "start")
    before = Path(site.app_folder / "current").resolve().name
    add(site, note(*_ALL))
    succeed(site, "upgrade", "v2")
    found = noted(site)
    assert [one["hook"] for one in found] == [
        "before_build",
        "after_build",
        "pre_upgrade",
        "pre_maintenance",
        "post_maintenance",
        "post_upgrade",
    ]
    release = Path(site.app_folder / "current").resolve().name
    operation = run_json(site, "log", "list")["data"]["operations"][0]["id"]
    for one in found:
        assert (one["operation"], one["operation_kind"]) == (operation, "upgrade")
        assert (one["release"], one["previous_release"]) == (release, before)
        assert not one["closed"] and one["more"] == ["a b"]
    by_name = {one["hook"]: one for one in found}
    for name in ("before_build", "after_build"):
        assert by_name[name]["cwd"] == str(site.app_folder)
    assert by_name["after_build"]["package"].startswith("v2-")
    for name in ("pre_upgrade", "pre_maintenance"):
        assert by_name[name]["cwd"].endswith(release) and by_name[name]["current"].endswith(before)
        assert by_name[name]["outcome"] == "running" and by_name[name]["worker"]
    for name in ("post_maintenance", "post_upgrade"):
        assert by_name[name]["current"].endswith(release) and by_name[name]["outcome"] == "committed"
    assert (by_name["post_maintenance"]["worker"], by_name["post_upgrade"]["worker"]) == (False, True)
    steps = [step["title"] for step in run_json(site, "log", "show", operation)["data"]["steps"]]
    order = [
        "compare migrations",
        "hook pre_upgrade",
        "hook pre_maintenance",
        "close the gate",
        "run migrate",
        "start and verify the web",
        "open the gate",
        "hook post_maintenance",
        "start and verify workers and schedulers",
        "hook post_upgrade",
    ]
    assert [title for title in steps if title in order] == order


def test_a_rolling_upgrade_has_no_maintenance_and_none_of_its_hooks(site: Site) -> None:
    for tag in ("v2", "v5"):
        succeed(site, "upgrade", tag)
    add(site, note(*_ALL))
    succeed(site, "upgrade", "v6", "--rolling")
    assert names(site) == ["before_build", "after_build", "pre_upgrade", "post_upgrade"]


def test_after_a_failure_the_old_version_serves_when_the_hook_runs(site: Site) -> None:
    succeed(site, "upgrade", "v2")
    add(site, note("post_upgrade", "on_failure"))
    done = run(site, "upgrade", "v3")
    assert done.returncode == 6
    (one,) = noted(site)
    assert (one["hook"], one["outcome"], one["failed_step"]) == ("on_failure", "undone", "run migrate")
    assert not one["closed"] and one["cwd"] == str(Path(site.app_folder / "current").resolve())
    assert one["previous_release"].endswith("-v2") and one["release"].endswith("-v3")
    assert site.get("/")[1]["version"] == "v2"


@pytest.mark.parametrize("name", [name for name in BEFORE if name != "before_backup"])
def test_a_hook_that_fails_before_the_commit_ends_the_operation(site: Site, name: str) -> None:
    before = site.fingerprint()
    add(site, note("on_failure") + f'\n{name} = [["false"], ["touch", "{site.folder}/never"]]')
    done = run(site, "upgrade", "v2")
    assert done.returncode == 6, done.stderr
    assert "`false` ended with exit code 1" in done.stderr
    assert site.fingerprint() == before and site.get("/")[1]["version"] == "v1"
    assert not (site.folder / "never").exists()
    assert names(site) == ["on_failure"] and noted(site)[0]["failed_step"] == f"hook {name}"


@pytest.mark.parametrize("name", ["pre_upgrade", "post_maintenance", "post_upgrade"])
def test_a_hook_that_only_warns_is_recorded_and_the_operation_goes_on(site: Site, name: str) -> None:
    add(site, f'[hooks.{name}]\ncommands = ["sh", "-c", "echo because; exit 3"]\nfailure = "warn"')
    done = run(site, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert site.get("/")[1]["version"] == "v2"
    said = f"the hook {name} failed: `sh -c echo because; exit 3` ended with exit code 3"
    assert said in done.stdout + done.stderr
    assert said in succeed(site, "log", "show", "latest")


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(site: Site) -> None:
    add(
        site,
        f'[hooks.post_upgrade]\ncommands = ["sh", "-c", "sleep 3600 & echo $! > {site.folder}/pid; wait"]\n'
        "timeout_seconds = 1",
    )
    done = run(site, "upgrade", "v2")
    assert done.returncode == 0 and "was ended after 1 seconds (time-out)" in done.stdout + done.stderr
    pid = (site.folder / "pid").read_text().strip()
    patience.until(lambda: not Path(f"/proc/{pid}/cwd").exists())


def test_the_hooks_of_a_backup_enclose_it_even_if_it_fails(site: Site) -> None:
    add(site, note("before_backup", "after_backup", "on_failure"))
    succeed(site, "backup", "create")
    first, second = noted(site)
    assert (first["hook"], first["outcome"]) == ("before_backup", "running")
    assert (second["hook"], second["outcome"]) == ("after_backup", "committed")
    assert second["backup"] == run_json(site, "backup", "list")["data"]["backups"][-1]["id"]
    (site.folder / "hooks.log").unlink()
    site.config.write_text(site.config.read_text().replace("before_backup = [", 'before_backup = ["false", '))
    assert run(site, "backup", "create").returncode == 6
    assert [(one["hook"], one["outcome"]) for one in noted(site)] == [
        ("after_backup", "undone"),
        ("on_failure", "undone"),
    ]


def test_a_restore_has_a_hook_when_visitors_are_served(site: Site) -> None:
    succeed(site, "backup", "create")
    add(site, note("after_restore"))
    succeed(site, "backup", "restore", "latest")
    assert [(one["hook"], one["closed"]) for one in noted(site)] == [("after_restore", False)]


def test_a_recovery_repeats_no_hook_and_says_which_was_cut_short(site: Site) -> None:
    marker = site.folder / "begun"
    command = f"echo x >> {marker}; sleep 3600"
    add(site, f'[hooks]\npost_upgrade = [["true"], ["sh", "-c", "{command}"], ["touch", "{site.folder}/never"]]')
    process = start(site, "upgrade", "v2")
    patience.until(marker.exists)
    process.kill()
    process.wait()
    done = run(site, "recover")
    assert done.returncode == 0, done.stderr
    said = "command 2 of the hook post_upgrade was cut short, and 1 more did not run; nothing of it is repeated"
    assert said in done.stdout + done.stderr
    assert said in succeed(site, "log", "show", "latest")
    assert marker.read_text() == "x\n" and not (site.folder / "never").exists()
    assert site.get("/")[1]["version"] == "v2"


def test_a_release_sets_hooks_of_its_own_but_not_those_of_the_machine_or_of_the_operator(site: Site) -> None:
    own = """
[hooks]
on_failure = ["touch", "{root}/of-the-release"]
before_build = ["touch", "{root}/of-the-release"]
pre_maintenance = ["touch", "{root}/of-the-release"]
post_upgrade = ["python3", "{root}/note.py"]

[hooks.pre_upgrade]
commands = ["python3", "{root}/note.py"]
where = "machine"
user = "root"
"""
    add_files(site, "v2.1", "v2", {"holdfast.toml": own})
    add(site, note("pre_maintenance"))
    done = run(site, "upgrade", "v2.1")
    assert done.returncode == 0, done.stderr
    ignored = next(line for line in done.stderr.splitlines() if "Ignored from" in line)
    for key in ("before_build", "on_failure", "pre_maintenance", "pre_upgrade.user", "pre_upgrade.where"):
        assert f"hooks.{key}" in ignored
    assert names(site) == ["pre_upgrade", "pre_maintenance", "post_upgrade"]
    assert noted(site)[0]["cwd"].endswith("-v2.1")
    assert not (site.app_folder / "of-the-release").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[hooks]\npre_upgade = ["true"]', "hooks.pre_upgade: unknown key. Did you mean pre_upgrade?"),
        (
            '[hooks.post_upgrade]\ncommands = ["a"]\nfailure = "abort"',
            "hooks.post_upgrade.failure: nothing can be undone",
        ),
        (
            '[hooks.after_build]\ncommands = ["a"]\nwhere = "application"',
            "hooks.after_build.where: after_build runs on",
        ),
        ('[hooks]\npre_upgrade = ["a", ["b"]]', "hooks.pre_upgrade: is one command or a list of commands"),
        ('[hooks]\npre_upgrade = ["a", "{port}"]', "hooks.pre_upgrade: {port} is only known to services"),
    ],
)
def test_a_wrong_hook_is_a_problem_of_the_configuration(site: Site, text: str, said: str) -> None:
    add(site, text)
    done = run(site, "config", "validate")
    assert done.returncode == 3
    assert said in done.stderr
