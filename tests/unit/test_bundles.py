"""The latest version of each bundle, in the database and in a release."""

from __future__ import annotations

from pathlib import Path

from holdfast.application import bundles

_INSTALLER = """<?php
class UserBundleInstaller implements Installation
{
    #[\\Override]
    public function getMigrationVersion(): string
    {
        return 'v1_11';
    }
}
"""


def _bundle(release: Path, place: str, name: str, versions: tuple[str, ...], installer: str = "") -> None:
    schema = release / place / "Migrations" / "Schema"
    for version in versions:
        (schema / version).mkdir(parents=True)
    schema.mkdir(parents=True, exist_ok=True)
    (release / place / f"{name}.php").touch()
    if installer:
        (schema / f"{name}Installer.php").write_text(installer)


def test_versions_of_folders_and_installers(quick_folder: Path) -> None:
    release = quick_folder / "release"
    _bundle(release, "vendor/oro/platform/src/Oro/Bundle/UserBundle", "OroUserBundle", ("v1_9", "v1_10"), _INSTALLER)
    _bundle(release, "vendor/oro/platform/src/Oro/Bundle/ApiBundle", "OroApiBundle", ("v1_2", "v1_10_1", "v1_10"))
    _bundle(release, "src/Acme/Bundle/ShopBundle", "AcmeShopBundle", ("v1_0",))
    _bundle(release, "src/Acme/Tests/Bundle/OtherBundle", "OtherBundle", ("v9_0",))
    assert bundles.shipped(release) == ["AcmeShopBundle v1_0", "OroApiBundle v1_10_1", "OroUserBundle v1_11"]


def test_only_the_latest_of_a_bundle_counts() -> None:
    """The table has a row for each run, with the latest version alone."""
    applied = ["OroApiBundle v1_1", "OroApiBundle v1_3", "OroGoneBundle v1_0"]
    assert bundles.named(bundles.latest(applied)) == ["OroApiBundle v1_3", "OroGoneBundle v1_0"]
    assert bundles.newer(["OroApiBundle v1_3"], applied) == []
    assert bundles.newer(["OroApiBundle v1_10", "OroNewBundle v1_0"], applied) == [
        "OroApiBundle v1_10",
        "OroNewBundle v1_0",
    ]
    assert bundles.missing(applied, ["OroApiBundle v1_3"]) == ["OroGoneBundle v1_0"]
