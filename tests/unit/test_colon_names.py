"""Names of orocloud-cli: one rule and a table, against the commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from holdfast.cli.catalogue import COMMANDS
from holdfast.cli.colon_names import BY_RULE, TABLE, Answered, form_of, names, translated
from holdfast.cli.main import holdfast, main

_KNOWN = {*COMMANDS, "cache", "patch", "media", "queue", "secret", "credentials"}


def meant(line: str, *, own: bool = False) -> str:
    return shlex.join(translated(shlex.split(line), _KNOWN, own=own))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("app:package:build 6.0.2 6.0.2-20240901", "package build 6.0.2 6.0.2-20240901"),
        ("app:package:list", "package list"),
        ("app:package:list --page=2 --per-page=10", "package list --page=2 --per-page=10"),
        ("app:package:deploy --rolling reg/app:6.0.2", "package deploy --rolling reg/app:6.0.2"),
        ("app:package:deploy --skip-check-patches reg/app:6.0.2", "package deploy --skip-check-patches reg/app:6.0.2"),
        ("app:package:upgrade --source 6.0.2", "upgrade --source 6.0.2"),
        ("upgrade:rolling --reference=6.0.2", "upgrade --rolling 6.0.2"),
        ("upgrade:source --reference 6.0.2", "upgrade --source 6.0.2"),
        ("upgrade --reference=6.0.2", "upgrade 6.0.2"),
        ("upgrade v2", "upgrade v2"),
        ("deploy 6.0.2 --force", "install --again 6.0.2 --yes"),
        ("backup:create --label='before the fair'", "backup create '--comment=before the fair'"),
        ("backup:create:db --label x", "backup create --only @databases --comment=x"),
        ("backup:create:media", "backup create --only @files"),
        ("backup:list --page=2", "backup list --page=2"),
        ("backup:restore 2024-09-01-1200", "backup restore --except @files 2024-09-01-1200"),
        ("backup:restore --with-media 2024-09-01-1200", "backup restore 2024-09-01-1200"),
        ("backup:restore:db 2024-09-01-1200", "backup restore --only @databases 2024-09-01-1200"),
        ("backup:restore:media 2024-09-01-1200", "backup restore --only @files 2024-09-01-1200"),
        ("maintenance:on --maintenance-mode-duration=1h", "maintenance on --duration=1h"),
        ("maintenance:off", "maintenance off"),
        ("emergency:on", "maintenance on --web-only"),
        ("service:stop:consumer", "service stop consumer"),
        ("service:restart", "service restart"),
        ("log:view 01JABC", "log show 01JABC"),
        ("config:help webserver.limit_whitelist", "config help webserver.limit_whitelist"),
        ("config:validate a.toml b.toml", "config validate a.toml b.toml"),
        ("patch:apply --force fix.patch", "patch apply --force fix.patch"),
        ("patch:list", "patch list"),
        ("cache:rebuild --force", "cache rebuild --yes"),
        ("media:list uploads --filter=cat", "media list uploads --filter=cat"),
        ("queue:messages --payload oro.default", "queue peek --payload oro.default"),
        ("rabbitmq:queue:purge / oro.default", "queue purge oro.default"),
        ("secret:set TOKEN", "secret set TOKEN"),
        (
            "credentials --format=json --selector=[databases][main]",
            "credentials show --format=json '[databases][main]'",
        ),
        ("credentials show databases", "credentials show databases"),
        ("credentials --help", "credentials --help"),
        ("-c shop.toml app:console 'oro:cron --env=prod' -vvv", "-c shop.toml console -- 'oro:cron --env=prod' -vvv"),
        ("app:console -vvv 'a \"b c\" d\\\\e'", "console -- -vvv"),
        ("--config x.toml backup:list -c y.toml", "--config x.toml backup list -c y.toml"),
        ("--no-ansi backup:list --ansi", "--no-ansi backup list --color=always"),
        ("import files a:b --into media", "import files a:b --into media"),
        ("backup restore -- a:b", "backup restore -- a:b"),
    ],
)
def test_a_name_is_a_command_here(line: str, wanted: str) -> None:
    if "app:console -vvv" in line:
        found = translated(shlex.split(line), _KNOWN)
        assert found == ["-vvv", "console", "--", "a", "b c", "d\\e"]
        return
    assert meant(line) == wanted


def test_called_as_orocloud_cli_the_names_without_colons_are_theirs() -> None:
    assert meant("upgrade v2 --skip-cache-rebuild") == "upgrade v2 --skip-cache-rebuild"
    with pytest.raises(Answered, match="warm_cache"):
        meant("upgrade v2 --skip-cache-rebuild", own=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("backup:create --fs-backup-type=vcs", "backup.code"),
        ("backup:create --log=x", "log show"),
        ("deploy -O name='value'", "tasks.install"),
        ("backup:sanitized:download", "backup list --sanitized"),
        ("dump:create", "holdfast clone"),
        ("app:schema:update", "holdfast upgrade"),
        ("upgrade:source v2 --skip-cache-rebuild", "tasks.warm_cache"),
        ("app:package:bild x", ""),
        ("backup:creat x", ""),
        ("nothing:like:this", "no command"),
    ],
)
def test_what_has_no_equivalent_is_answered(line: str, said: str) -> None:
    if said:
        with pytest.raises(Answered, match=re.escape(said)):
            meant(line)
    else:
        assert meant(line).split()[0] in COMMANDS, "the group itself says what it has"


def test_a_name_whose_command_this_version_lacks_says_what_it_would_be() -> None:
    with pytest.raises(Answered, match="It would be `holdfast patch apply`"):
        translated(["patch:apply", "x"], {"backup"})


@pytest.mark.parametrize("name", [*TABLE, *BY_RULE])
def test_every_name_leads_to_a_command_or_an_answer(name: str) -> None:
    form = form_of(name)
    if form.answer:
        return
    context = click.Context(holdfast, info_name="holdfast")
    command: click.Command | None = holdfast
    for word in form.words:
        if word.startswith(("-", "@")):
            break
        if command is holdfast and word not in COMMANDS:
            assert word in _KNOWN, f"{name} means a command that nobody knows"
            return
        assert isinstance(command, click.Group)
        command = command.get_command(context, word)
        assert command is not None, f"{name}: there is no {word}"
    assert command is not None
    known = {option for one in command.params for option in one.opts}
    for given in (word for word in form.words if word.startswith("--") and word != "--"):
        assert given in known or given == "--web-only", f"{name}: {given}"
    replaced = [meaning for meaning in form.options.values() if meaning.startswith("--") and meaning.endswith("=")]
    for meaning in replaced:
        assert meaning.rstrip("=") in known or command.name == "reroute", f"{name}: {meaning}"


def test_the_help_lists_the_names_and_a_bare_run_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["orocloud-cli"])
    main()
    shown = capsys.readouterr().out
    assert "Names of orocloud-cli" in shown
    for name in (one for one in names() if not form_of(one).answer):
        assert name.split(":")[0] in shown and name.rpartition(":")[2] in shown, name
    monkeypatch.setattr("sys.argv", ["holdfast", "help", "backup:create:db"])
    main()
    assert "Make a backup" in capsys.readouterr().out
