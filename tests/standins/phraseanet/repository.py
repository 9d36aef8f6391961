"""The git repository of the stand-in: the application of this folder, and versions with what each changes.

v4.1.20       the first one
v4.1.22       a column in each DataBox, which the page shows
v4.1.23-dies  its patch deletes rows of every DataBox, and fails
v4.1.24-fails a compatible patch; every page fails
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.standins import versions

APPLICATION = Path(__file__).parent / "application"
FIRST = "v4.1.20"
_CAPTION = """<?php
return ['databoxes' => ["ALTER TABLE record ADD caption TEXT DEFAULT NULL"]];
"""
_PAGE = """<?php
return ["boxes" => count($app->boxes()), "captions" => (int) $app->connection($app->boxes()[0])
    ->fetchOne("SELECT count(caption) FROM record")];
"""
_DIES = """<?php
return ['databoxes' => ["DELETE FROM subdef WHERE name = 'document'", "UPDATE record SET no_such_column = 1"]];
"""
_FAILS = "<?php\nthrow new RuntimeException('a page that fails');\n"
_OF_22 = {"src/patches/4.1.22.php": _CAPTION, "src/page.php": _PAGE}
_CHANGES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "v4.1.22": (FIRST, _OF_22),
    "v4.1.23-dies": (FIRST, {**_OF_22, "src/patches/4.1.23.php": _DIES}),
    "v4.1.24-fails": (FIRST, {**_OF_22, "src/page.php": _FAILS}),
}


def write(folder: Path) -> None:
    """Write the repository with every version as a tag."""
    versions.write(folder, APPLICATION, FIRST, _CHANGES)
