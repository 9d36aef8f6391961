"""Packages through the command line: built once, shared by a real registry, deployed to several environments."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.steps.package_use import environment_key
from tests import kept, terminal
from tests.e2e.cli import run, run_json, succeed
from tests.memory import make_folder
from tests.proof import patience
from tests.servers import registry as servers
from tests.servers.registry import RegistryServer
from tests.site import Site

LARGE = "import random; random.seed(1); open('large.bin', 'wb').write(random.randbytes(3 << 20))"


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as found:
        yield found


@pytest.fixture
def staging() -> Iterator[Site]:
    """Another environment of the same project, with a state of its own, on a machine that has no repository."""
    made = Site(make_folder() / "staging")
    made.become("staging")
    shutil.rmtree(made.repository)
    try:
        yield made
    finally:
        made.remove()
        shutil.rmtree(made.folder.parent, ignore_errors=True)


def git(site: Site, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(site.repository), "-c", "user.name=T", "-c", "user.email=t@example.invalid", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=patience.limit(30),
    )
    return done.stdout.strip()


def add(site: Site, section: str, *lines: str) -> None:
    """Add lines to a section of a site's configuration, which may be a new one."""
    text = site.config.read_text()
    head = f"[{section}]\n"
    more = "\n".join(lines) + "\n"
    site.config.write_text(text.replace(head, head + more) if head in text else f"{text}\n{head}{more}")


def share(site: Site, server: RegistryServer, repository: str, *lines: str, port: int | None = None) -> None:
    """Let a site use a registry, or another address of it."""
    text = re.sub(r"\n\[packages\.registry\]\n(.+\n)*", "", site.config.read_text())
    url = f"http://127.0.0.1:{port or server.port}/{repository}"
    limit = f"timeout_seconds = {patience.limit(5)}"
    site.config.write_text("\n".join([text, "[packages.registry]", f'url = "{url}"', limit, *lines, ""]))


def listed(site: Site, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_json(site, "package", "list", *arguments)["data"]["packages"]
    return found


def tree(site: Site) -> dict[str, tuple[str, int]]:
    """Return digest and mode of each file of the current release, but for what Holdfast adds."""
    current = (site.app_folder / "current").resolve()
    return {
        str(path.relative_to(current)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode)
        for path in current.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".holdfast") and path.suffix != ".pyc"
    }


# --- build -----------------------------------------------------------------------------------------------


def test_tags_branches_and_short_commits_give_packages_with_the_same_content(site: Site) -> None:
    commit = git(site, "rev-parse", "v2")
    git(site, "branch", "feature/sale", "v2")
    for number, reference in enumerate(("v2", "feature/sale", commit[:9])):
        succeed(site, "package", "build", reference, f"build-{number}")
    found = [one for one in listed(site) if one["id"].startswith("build-")]
    assert {one["commit"] for one in found} == {commit}, "the full commit is in the package"
    assert len(found) == 3 and len({one["content"] for one in found}) == 1
    for one in found:
        shutil.rmtree(site.state / "packages" / one["id"])
    succeed(site, "package", "build", "v2", "again")
    (again,) = [one for one in listed(site) if one["id"] == "again"]
    assert again["content"] == found[0]["content"], "also if nothing of it was built before"


def test_the_default_name_and_label(site: Site) -> None:
    printed = succeed(site, "package", "build", "v2")
    (one,) = [one for one in listed(site) if one["label"] == "v2"]
    assert re.fullmatch(r"v2-\d{8}", one["id"]) and one["id"] in printed
    assert one["note"] == "Reference: v2"
    succeed(site, "package", "build", "v2")
    assert [one["id"] for one in listed(site) if one["label"] == "v2"] == [one["id"]], "an equal build is one"
    add(site, "source", 'build = [["touch", "made"]]')
    succeed(site, "package", "build", "v2", "--label", "for the sale")
    other = next(other for other in listed(site) if other["label"] == "v2" and other["id"] != one["id"])
    assert (other["id"], other["note"]) == (f"{one['id']}-2", "for the sale")


def test_a_name_never_moves_to_another_commit(site: Site) -> None:
    succeed(site, "package", "build", "v2", "sale")
    before = listed(site)
    done = run(site, "package", "build", "v5", "sale")
    assert done.returncode == 4 and "exists already" in done.stderr and "Choose a new one" in done.stderr
    assert listed(site) == before


@pytest.mark.parametrize("tag", ["../escape", "a b", ".x", "tmp", "a" * 129])
def test_a_name_that_no_package_may_have_is_refused(site: Site, tag: str) -> None:
    done = run(site, "package", "build", "v2", tag)
    assert done.returncode == 4 and "not a valid name" in done.stderr
    assert [one["label"] for one in listed(site)] == ["v1"]


def test_build_asks_for_what_is_missing_on_a_terminal(site: Site) -> None:
    argv = terminal.holdfast("package", "build", "--config", str(site.config))
    shown, code = terminal.run(argv, 100, folder=site.folder, typed="v2\nv2-special\n\n")
    assert code == 0, shown.lines
    (one,) = [one for one in listed(site) if one["label"] == "v2"]
    assert (one["id"], one["note"]) == ("v2-special", "Reference: v2")
    text = "\n".join(shown.lines)
    assert "Tag, branch or commit" in text and re.search(r"Name of the package \[v2-\d{8}\]", text)


def test_without_a_terminal_a_missing_reference_is_a_wrong_command_line(site: Site) -> None:
    done = run(site, "package", "build")
    assert done.returncode == 2 and "holdfast package build REF" in done.stderr


def test_a_failed_build_leaves_nothing_listed(site: Site) -> None:
    add(site, "source", 'build = [["touch", "made"], ["false"]]')
    before = listed(site)
    done = run(site, "package", "build", "v2", "broken")
    assert done.returncode == 6 and "`false` ended with exit code 1" in done.stderr
    assert listed(site) == before
    assert list((site.state / "packages" / "tmp").iterdir()) == []


def test_skip_assets_build_leaves_out_only_the_assets(site: Site) -> None:
    add(site, "source", 'build = [["touch", "made"]]', 'assets = [["touch", "asset"]]')
    succeed(site, "package", "build", "v2", "bare", "--skip-assets-build")
    succeed(site, "package", "deploy", "bare")
    current = site.app_folder / "current"
    assert (current / "made").exists() and not (current / "asset").exists()
    succeed(site, "package", "build", "v2", "whole")
    succeed(site, "package", "deploy", "whole")
    assert (current / "asset").exists()


def test_patches_of_the_repository_are_applied_and_a_failing_one_fails_the_build_by_name(site: Site) -> None:
    git(site, "checkout", "--quiet", "-B", "patched", "v2")
    (site.repository / "patches").mkdir()
    text = (
        '--- settings.json\n+++ settings.json\n@@ -1,4 +1,4 @@\n {\n- "version": "v2",\n+ "version": "v2, patched",\n'
    )
    head = (site.repository / "settings.json").read_text().splitlines()[2:4]
    (site.repository / "patches" / "10-version.patch").write_text(text + "".join(f" {line}\n" for line in head))
    git(site, "add", "--all")
    git(site, "commit", "--quiet", "--message", "a patch")
    succeed(site, "upgrade", "patched")
    assert site.get("/")[1]["version"] == "v2, patched"
    (site.repository / "patches" / "20-bad.patch").write_text(text)
    git(site, "add", "--all")
    git(site, "commit", "--quiet", "--message", "a bad patch")
    done = run(site, "package", "build", "patched", "bad")
    assert done.returncode == 6 and "patches/20-bad.patch" in done.stderr
    assert "bad" not in [one["id"] for one in listed(site)]


# --- list, show, verify -------------------------------------------------------------------------------------


def test_the_list_is_sorted_and_paged(site: Site) -> None:
    for number in range(4):
        succeed(site, "package", "build", "v2", f"p{number}")
        record = site.state / "packages" / f"p{number}" / "manifest.json"
        record.write_text(
            json.dumps({**json.loads(record.read_text()), "built_at": f"2030-01-0{number + 1}T00:00:00Z"})
        )
    assert [one["id"] for one in listed(site)][:4] == ["p3", "p2", "p1", "p0"]
    page = run_json(site, "package", "list", "--page", "2", "--limit", "2")["data"]
    assert [one["id"] for one in page["packages"]] == ["p1", "p0"]
    assert (page["total"], page["pages"], page["page"], page["limit"]) == (5, 3, 2, 2)
    printed = succeed(site, "package", "list", "--limit", "2")
    assert "5 packages, page 1 of 3, 2 per page" in printed
    assert "PACKAGE" in printed and "LABEL" in printed and "Reference: v2" in printed
    assert "There is no page 9" in succeed(site, "package", "list", "--page", "9")


def test_show_and_verify_of_a_package_here(site: Site) -> None:
    succeed(site, "package", "build", "v2", "sale")
    shown = run_json(site, "package", "show", "sale")["data"]["package"]
    assert (shown["id"], shown["commit"], shown["used_by"]) == ("sale", git(site, "rev-parse", "v2"), [])
    assert shown["content"] in succeed(site, "package", "show", "sale")
    current = run_json(site, "release", "list")["data"]["releases"][0]["package"]
    assert run_json(site, "package", "show", current)["data"]["package"]["used_by"][0]["environment"] == "production"
    assert "2 packages verified" in succeed(site, "package", "verify")
    archive = site.state / "packages" / "sale" / "package.tar.zst"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    done = run(site, "package", "verify")
    assert done.returncode == 9 and "sale (here)" in done.stderr
    done = run(site, "package", "deploy", "sale")
    assert done.returncode in (6, 9) and "damaged" in done.stderr
    assert site.get("/")[1]["version"] == "v1"


@pytest.mark.parametrize("command", ["deploy", "show", "verify"])
def test_an_unknown_package_is_named_with_similar_ones(site: Site, command: str) -> None:
    succeed(site, "package", "build", "v2", "sale-2026")
    before = site.fingerprint()
    done = run(site, "package", command, "sale-2027")
    assert done.returncode == 4
    assert "sale-2027" in done.stderr and "sale-2026" in done.stderr and "holdfast package list" in done.stderr
    assert site.fingerprint() == before


def test_deploy_of_a_git_reference_names_the_command_for_it(site: Site) -> None:
    done = run(site, "package", "deploy", "v5")
    assert done.returncode == 4 and "holdfast upgrade v5" in done.stderr


@pytest.mark.parametrize("arguments", [["upgrade", "v99"], ["package", "build", "v99"]])
def test_an_unknown_reference_changes_nothing(site: Site, arguments: list[str]) -> None:
    before = (site.fingerprint(), listed(site))
    done = run(site, *arguments)
    assert done.returncode == 4 and "no tag, branch or commit 'v99'" in done.stderr
    assert (site.fingerprint(), listed(site)) == before


# --- deploy ------------------------------------------------------------------------------------------------


def test_upgrade_is_a_build_and_a_deploy_with_the_same_result(site: Site) -> None:
    succeed(site, "upgrade", "v2")
    one = (tree(site), listed(site)[0]["content"], site.fingerprint(times=False), site.get("/"))
    release = run_json(site, "release", "list")["data"]["releases"][0]
    with kept.site(tags=()) as other:
        succeed(other, "install", "v1")
        succeed(other, "package", "build", "v2", release["package"])
        succeed(other, "package", "deploy", release["package"])
        two = (tree(other), listed(other)[0]["content"], other.fingerprint(times=False), other.get("/"))
        assert run_json(other, "release", "list")["data"]["releases"][0]["package"] == release["package"]
    assert one[:2] == two[:2] and one[3] == two[3]


def test_a_package_is_deployed_in_three_modes(site: Site) -> None:
    for tag in ("v2", "v5", "v6", "v6.1"):
        succeed(site, "package", "build", tag, f"p-{tag}")
    succeed(site, "package", "deploy", "p-v2")
    succeed(site, "package", "deploy", "p-v5")
    for mode, tag in (("--rolling", "v6"), ("--source", "v6.1")):
        succeed(site, "package", "deploy", f"p-{tag}", mode)
        assert site.get("/")[1]["version"] == tag
    steps = run_json(site, "log", "show", "latest")["data"]
    assert "gate.close" not in json.dumps(steps["steps"])
    assert "is already running" in succeed(site, "package", "deploy", "p-v6.1")
    done = run(site, "package", "deploy", "p-v2", "--source")
    assert done.returncode == 4


def test_the_time_of_the_maintenance_page_is_printed(site: Site) -> None:
    done = run(site, "upgrade", "v2")
    assert re.search(r"visitors saw the maintenance page for [\d.]+ (ms|s)", done.stdout), done.stdout
    result = run_json(site, "upgrade", "v5")["data"]
    assert 0 < result["maintenance_seconds"] <= result["seconds"]
    assert result["expected_maintenance_seconds"] > 0
    result = run_json(site, "upgrade", "v6", "--rolling")["data"]
    assert result["maintenance_seconds"] == 0


# --- a registry that environments share ---------------------------------------------------------------------------


def test_a_package_is_built_once_and_deployed_to_two_environments(site: Site, staging: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    for one in (site, staging):
        share(one, server, repository)
    add(site, "source", f'build = [["python3", "-c", "{LARGE}"]]')
    succeed(site, "package", "build", "v1", "v1-first", "--no-push")
    assert server.tags(repository) == []
    assert run(site, "package", "deploy", "v1-first").returncode == 0
    printed = succeed(site, "package", "build", "v2", "v2-20261201", "--label", "For the sale")
    assert "v2-20261201" in printed
    (entry,) = [one for one in listed(site) if one["in_registry"]]
    assert (entry["name"], entry["note"]) == (f"{server.address}/{repository}:v2-20261201", "For the sale")
    assert entry["pushed_at"]
    assert [one["id"] for one in listed(staging)] == ["v2-20261201"], "staging sees what production pushed"

    # Staging has neither the repository nor the package, and nothing is installed there.
    done = run(staging, "package", "deploy", entry["name"])
    assert done.returncode == 0, done.stderr
    assert staging.get("/") == (200, {"version": "v2", "entries": 120})
    assert site.get("/")[1]["version"] == "v1", "production was not touched"
    done = run(site, "package", "deploy", "v2-20261201", "--rolling")
    assert done.returncode == 4, "v2 has a migration that is not declared compatible"
    succeed(site, "package", "deploy", "v2-20261201")
    assert tree(site) == tree(staging)
    contents = {listed(one, "--local")[0]["content"] for one in (site, staging)}
    assert contents == {entry["content"]}

    shown = run_json(site, "package", "show", "v2-20261201")["data"]["package"]
    uses = {use["environment"]: use["current"] for use in shown["used_by"]}
    assert uses == {"production": "v2-20261201", "staging": "v2-20261201"}
    assert site.state != staging.state and site.get("/")[1]["entries"] == staging.get("/")[1]["entries"]
    site.post(b"only in production")
    assert site.get("/")[1]["entries"] == staging.get("/")[1]["entries"] + 1


def test_an_upgrade_takes_what_another_environment_has_pushed(site: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    share(site, server, repository)
    succeed(site, "upgrade", "v2")
    (tag,) = [tag for tag in server.tags(repository) if not tag.startswith("holdfast-env-")]
    with kept.site(tags=()) as other:
        succeed(other, "install", "v1")
        share(other, server, repository)
        steps = [step["name"] for step in run_json(other, "upgrade", "v2", "--dry-run")["data"]["steps"]]
        assert "package.fetch" in steps and "package.build" not in steps
        succeed(other, "upgrade", "v2")
        assert tree(other) == tree(site)
        assert run_json(other, "release", "list")["data"]["releases"][0]["package"] == tag


def test_prune_never_removes_what_an_environment_needs(site: Site, staging: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    for one in (site, staging):
        share(one, server, repository)
    for tag in ("v1", "v2", "v5", "v6"):
        succeed(site, "package", "build", tag, f"p-{tag}")
    succeed(staging, "package", "deploy", "p-v1")
    succeed(staging, "package", "deploy", "p-v2")
    succeed(site, "package", "deploy", "p-v5")
    would = run_json(site, "package", "prune", "--keep", "0", "--dry-run")["data"]["unused_in_registry"]
    assert would == [f"{server.address}/{repository}:p-v6"]
    succeed(site, "package", "prune", "--keep", "0")
    assert sorted(one["id"] for one in listed(staging)) == ["p-v1", "p-v2", "p-v5"], "staging may go back to v1"
    succeed(site, "package", "prune")
    assert "p-v5" in [one["id"] for one in listed(site)]
    shutil.rmtree(staging.state / "packages")
    succeed(staging, "package", "deploy", "p-v5")


def test_a_package_of_another_application_is_refused(site: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    share(site, server, repository)
    succeed(site, "package", "build", "v2", "sale")
    shutil.rmtree(site.state / "packages" / "sale")
    text = site.config.read_text()
    with kept.site(tags=()) as other:
        other.config.write_text(other.config.read_text().replace('name = "guestbook"', 'name = "shop"'))
        share(other, server, repository)
        done = run(other, "package", "deploy", "sale")
        assert done.returncode == 4 and "application 'guestbook', not of 'shop'" in done.stderr
    assert site.config.read_text() == text


def test_a_digest_that_does_not_match_is_refused(site: Site, staging: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    for one in (site, staging):
        share(one, server, repository)
    add(site, "source", f'build = [["sh", "-c", "echo {repository} >own"]]')
    succeed(site, "package", "build", "v2", "sale")
    entry = next(one for one in listed(site) if one["id"] == "sale")
    blob = server.blob(entry["digest"])
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    done = run(site, "package", "verify", "sale")
    assert done.returncode == 9 and "not what was announced" in done.stderr
    done = run(staging, "package", "deploy", "sale")
    assert done.returncode == 9, done.stderr
    assert entry["digest"] in done.stderr and "not what was announced" in done.stderr
    assert "all preparations were undone" in done.stderr and "Do not deploy it" in done.stderr
    assert listed(staging, "--local") == [] and not (staging.app_folder / "current").exists()
    assert list((staging.state / "packages" / "tmp").iterdir()) == []


def test_a_package_with_the_name_of_another_one_is_not_pushed(site: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    share(site, server, repository)
    succeed(site, "package", "build", "v2", "sale")
    shutil.rmtree(site.state / "packages" / "sale")
    done = run(site, "package", "build", "v5", "sale")
    assert done.returncode == 4 and "is another package already" in done.stderr
    assert "holdfast package build REF TAG" in done.stderr


def test_a_secret_that_does_not_resolve_stops_no_deployment_of_what_is_here(site: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    share(site, server, repository)
    succeed(site, "package", "build", "v2", "sale")
    guarded = RegistryServer(login="basic")
    try:
        share(site, guarded, "shop", 'user = "u"', f'password = "file:{site.folder}/none"')
        done = run(site, "package", "deploy", "sale")
        assert done.returncode == 0, done.stderr
        assert f"secret file:{site.folder}/none" in done.stderr and site.get("/")[1]["version"] == "v2"
        done = run(site, "package", "build", "v5")
        assert done.returncode != 0 and f"secret file:{site.folder}/none" in done.stderr
    finally:
        guarded.remove()


def test_a_name_that_cannot_be_pushed_is_only_refused_if_a_push_was_asked_for(site: Site) -> None:
    server = servers.shared()
    share(site, server, server.repository())
    git(site, "tag", "v2+more", "v2")
    done = run(site, "upgrade", "v2+more", "--push")
    assert done.returncode == 4 and "cannot be pushed" in done.stderr
    succeed(site, "upgrade", "v2+more")
    assert site.get("/")[1]["version"] == "v2"


def test_check_says_that_a_registry_does_not_answer(site: Site) -> None:
    server = RegistryServer()
    server.remove()
    share(site, server, "shop")
    found = run_json(site, "check")["data"]["problems"]
    (problem,) = [one for one in found if one["subject"] == "packages.registry"]
    assert problem["severity"] == "warning" and "does not answer" in problem["message"]


def test_an_installation_goes_on_without_the_registry_if_asked_to() -> None:
    server = RegistryServer()
    server.remove()
    with kept.site(tags=()) as site:
        share(site, server, "shop")
        done = run(site, "install", "v1")
        assert done.returncode == 4 and "--no-push" in done.stderr
        succeed(site, "install", "v1", "--no-push")
        assert site.get("/")[1]["version"] == "v1"


def test_without_a_registry_a_push_is_refused(site: Site) -> None:
    done = run(site, "package", "build", "v2", "--push")
    assert done.returncode == 4 and "[packages.registry]" in done.stderr
    assert [one["label"] for one in listed(site)] == ["v1"]


def test_the_password_of_a_registry_is_nowhere_in_clear(site: Site) -> None:
    server = RegistryServer(login="basic")
    try:
        secret = site.folder / "password"
        secret.write_text(servers.PASSWORD + "\n")
        share(site, server, "shop", f'user = "{servers.USER}"', f'password = "file:{secret}"')
        done = run(site, "package", "build", "v2", "sale", "-vvv")
        assert done.returncode == 0, done.stderr
        places = [path for path in site.state.rglob("*") if path.is_file()]
        for text in (done.stdout.encode(), done.stderr.encode(), *(path.read_bytes() for path in places)):
            assert servers.PASSWORD.encode() not in text
        secret.write_text("another one\n")
        done = run(site, "package", "list")
        assert done.returncode == 4 and "packages.registry.password" in done.stderr
    finally:
        server.remove()


# --- a registry that is gone in the middle ------------------------------------------------------------------------


def test_a_registry_that_is_gone_in_the_middle_of_a_push(site: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    add(site, "source", f'build = [["python3", "-c", "{LARGE}"]]')
    with servers.relay(server.port, upwards=1 << 20) as cut:
        share(site, server, repository, port=cut.port)
        done = run(site, "package", "build", "v2", "sale")
        assert done.returncode == 4, done.stderr
        assert "does not answer" in done.stderr and "all preparations were undone" in done.stderr
        assert "run the command again" in done.stderr
    assert server.tags(repository) == [], "nothing is half listed"
    share(site, server, repository)
    succeed(site, "package", "build", "v2", "sale")
    assert server.tags(repository) == ["sale"]
    succeed(site, "package", "verify", "sale")


def test_a_registry_that_is_gone_in_the_middle_of_a_deploy(site: Site, staging: Site) -> None:
    server = servers.shared()
    repository = server.repository()
    share(site, server, repository)
    add(site, "source", f'build = [["python3", "-c", "{LARGE}"]]')
    succeed(site, "package", "build", "v1", "first")
    succeed(site, "package", "build", "v2", "second")
    share(staging, server, repository)
    succeed(staging, "package", "deploy", "first")
    before = staging.fingerprint()
    with servers.relay(server.port, downwards=1 << 20) as cut:
        share(staging, server, repository, port=cut.port)
        done = run(staging, "package", "deploy", "second")
        assert done.returncode == 4, done.stderr
        assert "does not answer" in done.stderr and "all preparations were undone" in done.stderr
        done = run(staging, "package", "list")
        assert done.returncode == 4 and "Start it, or correct `packages.registry.url`" in done.stderr
        assert [one["id"] for one in listed(staging, "--local")] == ["first"], "nothing is half listed"
    assert staging.fingerprint() == before and staging.get("/")[1]["version"] == "v1"
    assert list((staging.state / "packages" / "tmp").iterdir()) == []
    share(staging, server, repository)
    succeed(staging, "package", "deploy", "second")
    assert staging.get("/")[1]["version"] == "v2"


def test_what_is_here_is_deployed_without_the_registry_and_recorded_later(site: Site) -> None:
    server = RegistryServer()
    share(site, server, "shop")
    try:
        succeed(site, "package", "build", "v2", "second")
        succeed(site, "package", "build", "v5", "third")
    finally:
        server.stop()
    done = run(site, "package", "deploy", "second")
    assert done.returncode == 0, done.stderr
    assert "does not know yet which packages" in done.stderr
    done = run(site, "upgrade", "v6")
    assert done.returncode == 4 and "--no-push" in done.stderr
    server.start()
    try:
        succeed(site, "package", "deploy", "third")
        app = site.open()
        key = environment_key(app.context)
        assert app.context.registry is not None
        (use,) = app.context.registry.uses()
        app.close()
        assert (use.key, use.current) == (key, "third") and "second" in use.packages
    finally:
        server.remove()
    succeed(site, "upgrade", "v6", "--no-push")
