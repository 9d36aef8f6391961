"""The git repository of the stand-in: the application of this folder, and versions with what each changes.

v5.1.0        the first one
v5.1.0-p1     only code
v5.1.1        compatible: a column that may be NULL, a table, a data fixture; of one bundle two versions at once
v5.1.1-p1     only code
v5.1.2        drops a column, and with it an entity field
dies          creates a table, deletes rows, and fails
answers-500   every page fails; the migrations are compatible
bad-syntax    a class that PHP cannot read: nothing starts, and no cache can be warmed
consumer-dies its consumers end at once; the migrations are compatible
does-nothing  its own tasks forget --force
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.standins import versions

APPLICATION = Path(__file__).parent / "application"
GOOD = ("v5.1.0", "v5.1.0-p1", "v5.1.1", "v5.1.1-p1", "v5.1.2")
_USER = "src/Oro/Bundle/UserBundle/Migrations/Schema"
_SHOP = "src/Acme/Bundle/ShopBundle/Migrations"
_MIGRATION = """<?php

namespace %s;

final class %s
{
    /** @return string[] */
    public function queries(): array
    {
        return [%s];
    }
}
"""
_FIXTURE = """<?php

namespace Acme\\Bundle\\ShopBundle\\Migrations\\Data\\ORM;

use Doctrine\\DBAL\\Connection;

final class LoadTags
{
    public function load(Connection $database): void
    {
        $database->executeStatement("INSERT INTO acme_tag(name) VALUES ('new'), ('old')");
    }
}
"""
_PAGE_OF_1 = """<?php
return $database->fetchAssociative('SELECT title, nickname FROM oro_user ORDER BY id LIMIT 1')
    + ['tags' => $database->fetchOne('SELECT count(*) FROM acme_tag')];
"""
_PAGE_OF_2 = "<?php\nreturn $database->fetchAssociative('SELECT nickname FROM oro_user ORDER BY id LIMIT 1');\n"
_FORGETFUL = '[tasks]\nmigrate = ["php", "bin/console", "oro:platform:update", "--skip-download-translations"]\n'


def _migration(folder: str, version: str, name: str, *queries: str) -> dict[str, str]:
    """Return the file of a migration of one bundle."""
    namespace = f"{folder.removeprefix('src/')}/{version}".replace("/", "\\")
    texts = ", ".join(f'"{query}"' for query in queries)
    return {f"{folder}/{version}/{name}.php": _MIGRATION % (namespace, name, texts)}


_OF_1: Mapping[str, str] = {
    **_migration(_USER, "v1_10_1", "AddNickname", "ALTER TABLE oro_user ADD nickname VARCHAR(100) DEFAULT NULL"),
    **_migration(
        _USER,
        "v1_11",
        "ConfigureNickname",
        "INSERT INTO oro_entity_config_field (entity, field_name, type, state)"
        " VALUES ('User', 'nickname', 'string', 'Active')",
    ),
    **_migration(
        f"{_SHOP}/Schema",
        "v1_1",
        "CreateTags",
        "CREATE TABLE acme_tag (id SERIAL PRIMARY KEY, name VARCHAR(100) NOT NULL)",
    ),
    f"{_SHOP}/Data/ORM/LoadTags.php": _FIXTURE,
    "src/page.php": _PAGE_OF_1,
}
_OF_2: Mapping[str, str] = {
    **_migration(
        _USER,
        "v1_12",
        "DropTitle",
        "ALTER TABLE oro_user DROP COLUMN title",
        "DELETE FROM oro_entity_config_field WHERE entity = 'User' AND field_name = 'title'",
    ),
    "src/page.php": _PAGE_OF_2,
}
_DIES = _migration(
    f"{_SHOP}/Schema",
    "v1_2",
    "Dies",
    "CREATE TABLE acme_half (id SERIAL PRIMARY KEY)",
    "DELETE FROM acme_order WHERE id % 2 = 0",
    "UPDATE oro_user SET no_such_column = 1",
)
_CHANGES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "v5.1.0-p1": ("v5.1.0", {}),
    "v5.1.1": ("v5.1.0", _OF_1),
    "v5.1.1-p1": ("v5.1.1", {}),
    "v5.1.2": ("v5.1.1", _OF_2),
    "dies": ("v5.1.0", _DIES),
    "answers-500": ("v5.1.0", {**_OF_1, "src/page.php": "<?php throw new RuntimeException('a page that fails');\n"}),
    "bad-syntax": ("v5.1.0", {"src/Oro/Report.php": "<?php\nnamespace Oro;\nfinal class Report {{\n"}),
    "consumer-dies": ("v5.1.0", {**_OF_1, "src/commands/zz.php": ""}),
    "does-nothing": ("v5.1.0", {**_OF_1, "holdfast.toml": _FORGETFUL}),
}
_CONSUMER_DIES = """<?php
// A service that its container lacks: every consumer ends at its start.
return static function ($application): void {
    $application->get('oro:message-queue:consume')->setCode(static function (): int {
        fwrite(STDERR, "You have requested a non-existent service\\n");
        return 255;
    });
};
"""


def write(folder: Path) -> None:
    """Write the repository with every version as a tag."""
    changes = {
        tag: (base, {name: text or _CONSUMER_DIES for name, text in files.items()})
        for tag, (base, files) in _CHANGES.items()
    }
    versions.write(folder, APPLICATION, "v5.1.0", changes)
