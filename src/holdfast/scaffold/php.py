"""What `init` finds in a PHP project: its preset by composer.json, and the lines that the preset leaves open."""

from __future__ import annotations

import json
from pathlib import Path

_BY_PACKAGE = (
    ("oro/commerce", "orocommerce", "OroCommerce"),
    ("oro/commerce-crm", "orocommerce", "OroCommerce"),
    ("oro/crm", "oroplatform", "OroCRM"),
    ("oro/platform", "oroplatform", "OroPlatform"),
    ("symfony/framework-bundle", "symfony", "Symfony"),
)


def preset_of(code: Path) -> tuple[str, str] | None:
    """Return the preset of a PHP project and what was recognized; None for anything else."""
    try:
        required = json.loads((code / "composer.json").read_text()).get("require", {})
    except (OSError, ValueError, AttributeError):
        return None
    for package, preset, what in _BY_PACKAGE:
        if isinstance(required, dict) and package in required:
            return preset, what
    return ("php", "a PHP project with public/index.php") if (code / "public" / "index.php").is_file() else None


def lines(preset: str, name: str) -> list[str]:
    """Return what the operator has to say besides the preset."""
    found = []
    if preset != "php":
        database = name.replace("-", "_")
        found += [
            "[databases.main]",
            f'name = "{database}"   # ? the name of the database',
            f'user = "{database}"   # ? the role that owns it, and may create databases',
            "",
        ]
    return [*found, "[gate]", 'listen = "127.0.0.1:8000"   # ? the address that visitors use', ""]
