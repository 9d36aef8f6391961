"""A site's holdfast.toml: what an application's module says, with what belongs to the scratch folder."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from string import Template
from typing import Any

from tests.realworld.application import ACCOUNT, Application, Site

STAGING = "staging"
PYTHON = "/usr/bin/python3"


def of(application: Application, site: Site) -> dict[str, Any]:
    """Return the whole configuration; `$account` and the like in the module's text are replaced."""
    database = site.database
    values = {
        "account": ACCOUNT,
        "database": database.name,
        "host": database.host,
        "user": database.user,
        "folder": str(site.folder),
        **site.facts,
    }
    own: dict[str, Any] = tomllib.loads(Template(application.configuration()).substitute(values))
    if database.kind in ("postgresql", "mariadb"):
        given = {"kind": database.kind, "name": database.name, "host": database.host, "user": database.user}
        _merge(own, {"databases": {"main": given}})
    common = {
        "application": {"name": application.name, "state": f"{site.folder}/state"},
        "source": {"repository": f"{site.folder}/repository"},
        "gate": {"kind": "front", "listen": f"127.0.0.1:{site.port}"},
        "vaults": {"local": {"path": f"{site.folder}/vault"}},
    }
    if "python" in own.get("source", {}):  # that of this run may be in a folder that is closed to other accounts
        _merge(own, {"source": {"python": {"interpreter": PYTHON}}})
    _merge(own, common)
    return own


def overlay(configuration: Mapping[str, Any], site: Site, port: int) -> dict[str, Any]:
    """Return holdfast.staging.toml: every key that leads to production's data leads to others here."""

    def other(text: str) -> str:
        return text.replace("shared/", f"{STAGING}/shared/").replace(
            site.database.name, f"{site.database.name}_staging"
        )

    found = _changed(configuration, other)
    _merge(
        found,
        {
            "application": {"environment": STAGING, "state": f"{site.folder}/state-{STAGING}"},
            "releases": {"path": f"{STAGING}/releases"},
            "gate": {"kind": "front", "listen": f"127.0.0.1:{port}"},
            "vaults": {"local": {"path": f"{site.folder}/vault-{STAGING}"}},
        },
    )
    return found


def _changed(value: Mapping[str, Any], other: Callable[[str], str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        changed: Any = item
        if isinstance(item, Mapping):
            changed = _changed(item, other)
            if changed:
                found[key] = changed
            continue
        if isinstance(item, str):
            changed = other(item)
        elif isinstance(item, list):
            changed = json.loads(other(json.dumps(item)))
        if changed != item:
            found[key] = changed
    return found


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def toml(value: Mapping[str, Any], above: str = "") -> str:
    """Return a table as TOML."""
    lines = [f"{json.dumps(key)} = {_plain(item)}" for key, item in value.items() if not isinstance(item, Mapping)]
    text = "\n".join([f"[{above}]" if above else "", *lines]) + "\n" if lines else ""
    for key, item in value.items():
        if isinstance(item, Mapping):
            text += toml(item, f"{above}.{json.dumps(key)}" if above else json.dumps(key))
    return text


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_plain(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
