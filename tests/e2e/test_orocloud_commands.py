"""The example commands of orocloud-cli's page on upgrades, as they are printed there but for the registry's address."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests import kept
from tests.e2e.cli import script, succeed
from tests.proof import patience
from tests.servers import registry as servers
from tests.site import Site

PACKAGE = "ocom-proj-dev1-reg1/orocommerce-enterprise-application"
RELEASES = {"6.0.2": "v2", "6.0.3": "v5", "6.0.4": "v6", "6.0.5": "v6.1"}


@pytest.fixture
def site() -> Iterator[Site]:
    """v1, whose repository has the page's tags, and a registry that its packages are pushed to."""
    server = servers.shared()
    with kept.site(backup=True) as lent:
        for tag, release in RELEASES.items():
            argv = ["git", "-C", str(lent.repository), "tag", tag, f"{release}^{{commit}}"]
            subprocess.run(argv, check=True, timeout=patience.limit(30))
        limit = f"timeout_seconds = {patience.limit(5)}"
        url = f'url = "{server.url(PACKAGE)}"'
        lent.config.write_text(f"{lent.config.read_text()}\n[packages.registry]\n{url}\n{limit}\n")
        yield lent


def test_the_commands_of_the_page_on_upgrades(site: Site) -> None:
    place = f"{servers.shared().address}/{PACKAGE}"

    def runs(line: str, release: str) -> None:
        done = script(site, f"orocloud-cli {line}")
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert site.get("/")[1]["version"] == release, line

    runs("app:package:build 6.0.2 6.0.2-20240901", "v1")
    listed = script(site, "orocloud-cli app:package:list")
    assert f"{place}:6.0.2-20240901" in listed.stdout and "Reference: 6.0.2" in listed.stdout, listed.stdout
    runs(f"app:package:deploy {place}:6.0.2-20240901", "v2")
    runs("app:package:upgrade 6.0.3", "v5")
    runs("app:package:upgrade --rolling 6.0.4", "v6")
    runs("app:package:build 6.0.5 6.0.5-20240901", "v6")
    runs(f"app:package:deploy --rolling {place}:6.0.5-20240901", "v6.1")
    succeed(site, "rollback")
    runs(f"app:package:deploy --source {place}:6.0.5-20240901", "v6.1")
    succeed(site, "rollback")
    runs("app:package:upgrade --source 6.0.5", "v6.1")
