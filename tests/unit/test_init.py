"""`init`: every guess is marked, or asked about on a terminal; editors get a schema."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from holdfast.config.load import load
from holdfast.scaffold import init
from holdfast.scaffold.guesses import Guess, answered
from tests import terminal


@pytest.fixture
def shop(quick_folder: Path) -> Path:
    folder = quick_folder / "Shop"
    (folder / ".git").mkdir(parents=True)
    (folder / "media").mkdir()
    (folder / "app.py").touch()
    (folder / "shop.sqlite3").write_bytes(b"SQLite format 3\0" + b"\0" * 100)
    return folder


def test_every_guess_is_marked_and_the_file_is_valid(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    path, _ = init.write(shop)
    text = path.read_text()
    assert text.startswith("#:schema ./holdfast.schema.json\n")
    assert json.loads((shop / "holdfast.schema.json").read_text())["$defs"]["Configuration"]
    certain = {"environment", "repository", "kind", "keep"}
    for line in text.splitlines():
        if key := re.match(r"(\w+) = ", line):
            assert ("# ?" in line) is (key[1] not in certain), line
    loaded = load(str(shop))
    assert loaded.configuration.application.name == "shop"
    assert loaded.configuration.services["web"].command == ["python3", "app.py"]
    assert "/.local/state/holdfast/shop.production" in str(loaded.state)


def test_django_gets_its_health_check_as_a_guess(shop: Path) -> None:
    (shop / "manage.py").write_text("import django\n")
    (shop / "shop").mkdir()
    (shop / "shop" / "wsgi.py").touch()
    text, _ = init.propose(shop, None)
    assert 'extends = "preset:django"' in text and "shop.wsgi" in text
    assert re.search(r'^health = "/"   # \? ', text, re.MULTILINE)


@pytest.mark.parametrize(
    ("required", "preset"),
    [
        ({"oro/commerce": "6.0.*", "oro/platform": "6.0.*"}, "orocommerce"),
        ({"php": ">=8.1", "oro/platform": "5.1.*"}, "oroplatform"),
        ({"symfony/framework-bundle": "^7"}, "symfony"),
        ({}, "php"),
    ],
)
def test_a_php_project_gets_the_preset_of_its_packages(shop: Path, required: dict[str, str], preset: str) -> None:
    (shop / "composer.json").write_text(json.dumps({"require": required}))
    (shop / "public").mkdir()
    (shop / "public" / "index.php").touch()
    path, findings = init.write(shop)
    assert any(f"preset:{preset}" in finding for finding in findings)
    loaded = load(str(path))
    assert loaded.configuration.services["web"].files["var/nginx.conf"].startswith("preset:nginx-")
    assert loaded.configuration.backup.keep
    meant = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", "["))]
    assert len(meant) <= 10, "ten lines are enough"


def test_answers_take_the_place_of_guesses() -> None:
    text = 'a = 1\n[b]\nname = "x"   # ? which\ncommand = ["run", "a b"]   # ? the program\nport = 8   # ? number\n'
    asked: list[Guess] = []

    def ask(guess: Guess) -> str:
        asked.append(guess)
        return {"b.name": 'new "x"', "b.command": "serve 'c d' {port}"}[guess.key]

    assert tomllib.loads(answered(text, ask)) == {
        "a": 1,
        "b": {"name": 'new "x"', "command": ["serve", "c d", "{port}"], "port": 8},
    }
    assert asked == [Guess("b.name", "x", "which"), Guess("b.command", "run 'a b'", "the program")]
    assert answered(text, ask).count("# ?") == 1


def test_a_terminal_is_asked(shop: Path) -> None:
    shown, code = terminal.run(terminal.holdfast("init"), 100, folder=shop, typed="kiosk\n" + "\n" * 20)
    assert code == 0, shown.lines
    assert any(line.startswith("application.name (from the name of the folder) [shop]:") for line in shown.lines)
    configuration = load(str(shop)).configuration
    assert (configuration.application.name, configuration.gate.listen) == ("kiosk", "127.0.0.1:8000")
    assert "?" not in (shop / "holdfast.toml").read_text().split("marked ?.")[1]


def test_with_yes_nothing_is_asked(shop: Path) -> None:
    shown, code = terminal.run(terminal.holdfast("init", "--yes"), 100, folder=shop)
    assert code == 0 and "Enter" not in "\n".join(shown.lines)
    assert "# ? " in (shop / "holdfast.toml").read_text()
