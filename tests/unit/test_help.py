"""Help: in groups, with examples, uncut at any width; exit codes from one table; errors in the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from holdfast import errors
from holdfast.cli.catalogue import COMMANDS
from holdfast.cli.command import COMMON, Command, Group
from holdfast.cli.main import holdfast, main


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its words."""
    root = click.Context(holdfast, info_name="holdfast")
    for name in COMMANDS:
        found = holdfast.get_command(root, name)
        assert found is not None
        yield name, found
        if isinstance(found, click.Group):
            yield from ((f"{name} {inner}", command) for inner, command in found.commands.items())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_every_command_has_examples_that_its_own_parser_accepts() -> None:
    for words, command in commands():
        assert isinstance(command, Command | Group), words
        assert isinstance(command, Group) or command.examples, words
        for example, purpose in command.examples:
            assert example.startswith(words) and purpose[-1] in ".?!", example
            arguments = shlex.split(example.removeprefix(words))
            arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
            command.make_context(words, arguments).close()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_fits_the_terminal_and_cuts_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for words, command in (("", holdfast), *commands()):
        text = command.get_help(click.Context(command, info_name=f"holdfast {words}"))
        for line in text.splitlines():
            assert line.startswith("Usage:") or line.endswith(("]...", "ARGS]...")) or not line.endswith("..."), line
            assert len(line) <= min(width, 100) or line.startswith("  holdfast "), line


def test_help_of_a_command_does_not_repeat_the_common_options() -> None:
    for words, command in commands():
        text = command.get_help(click.Context(command, info_name=words))
        assert "--environment NAME" not in text, words
        assert "help options" in text, words


def test_the_root_has_every_command_in_a_group_and_help_finds_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    for words, command in commands():
        assert " " in words or f"\n  {words} " in shown, words
        assert run(monkeypatch, "help", *words.split()) == 0
        assert (command.help or "").split("\n")[0][:40] in capsys.readouterr().out
    assert run(monkeypatch, "help", "options") == 0
    assert "NO_COLOR" in capsys.readouterr().out


def test_every_error_has_an_exit_code_of_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def below(kind: type[errors.HoldfastError]) -> Iterator[type[errors.HoldfastError]]:
        yield kind
        for inner in kind.__subclasses__():
            yield from below(inner)

    assert {kind.exit_code for kind in below(errors.HoldfastError)} <= errors.EXIT_CODES.keys()
    assert run(monkeypatch, "help", "exit-codes") == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {code} " in shown for code in errors.EXIT_CODES)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["upgarde", "v2"], "there is no command 'upgarde'. Did you mean upgrade?"),
        (["backup", "lst"], "there is no command 'lst'. Did you mean list?"),
        (["help", "bakup"], "there is no command 'bakup'. Did you mean backup?"),
        (["zzz"], "there is no command 'zzz'."),
        (["upgrade"], "Missing argument 'REF'."),
        (["backup", "create", "--consistency", "none"], "Invalid value for '--consistency'"),
    ],
)
def test_an_error_in_the_command_line_has_suggestions_and_a_json_object_wherever_it_is_wanted(
    arguments: list[str], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"Error: {what}") and shown.out == ""
    for wanted in (["--json", *arguments], [*arguments, "--json"]):
        assert run(monkeypatch, *wanted) == 2
        value: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert value["error"]["what"].startswith(what)
        assert (value["ok"], value["exit_code"], value["error"]["class"]) == (False, 2, "UsageError")


def test_a_mistyped_option_is_suggested(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "upgrade", "v2", "--dryrun") == 2
    assert "--dry-run" in capsys.readouterr().err


def test_common_options_stand_before_or_after_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["-c", "/nowhere", "--json", "status"], ["status", "-c", "/nowhere", "--json"]):
        code = run(monkeypatch, *arguments)
        value = json.loads(capsys.readouterr().out)
        assert value["exit_code"] == code == 4
        assert value["error"]["what"] == "there is no /nowhere"
        assert value["error"]["state"] == "", "a question changes nothing"
    assert set(COMMON) == {"config", "environment", "verbose", "quiet", "as_json", "color", "yes"}
