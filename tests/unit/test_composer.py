"""The scripts of composer.json as tasks."""

from __future__ import annotations

import json

import pytest

from holdfast.config.composer import tasks
from holdfast.errors import ConfigurationError

_SCRIPTS = {
    "upgrade": ["@php bin/console oro:platform:update --force", "@warm", "echo done > 'var/a b'"],
    "warm": "php bin/console cache:warmup",
    "callback": ["@warm", "Oro\\Bundle\\ScriptHandler::installAssets"],
    "circle": ["@again"],
    "again": "@circle",
    "lost": "@nowhere",
}


def read(**chosen: str) -> dict[str, list[list[str]]]:
    return tasks(json.dumps({"scripts": _SCRIPTS}), chosen, "v2:composer.json")


def test_scripts_become_commands() -> None:
    assert read(migrate="upgrade", warm_cache="no-such-script") == {
        "migrate": [
            ["php", "bin/console", "oro:platform:update", "--force"],
            ["php", "bin/console", "cache:warmup"],
            ["sh", "-c", "echo done > 'var/a b'"],
        ]
    }
    assert read(prepare="callback") == {"prepare": [["composer", "run-script", "--no-interaction", "callback"]]}
    assert tasks("", {"migrate": "upgrade"}, "x") == {}
    assert tasks("{}", {"migrate": "upgrade"}, "x") == {}


@pytest.mark.parametrize("name", ["circle", "lost"])
def test_scripts_that_cannot_be_used_are_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"composer\.json cannot be used"):
        read(migrate=name)


@pytest.mark.parametrize("text", ["{", '{"scripts": {"upgrade": 3}}', "[]"])
def test_a_broken_file_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"v2:composer\.json cannot be read"):
        tasks(text, {"migrate": "upgrade"}, "v2:composer.json")
