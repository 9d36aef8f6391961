"""From files to one configuration: everything wrong at once, with its key and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.config import load as loading
from holdfast.config.lines import lines_of
from holdfast.config.load import ResolvedConfig, load, merge_release, undump, validate_files
from holdfast.config.places import Places
from holdfast.config.reference import all_keys, explain
from holdfast.errors import ConfigurationError, NotFoundError

GOOD = """
[application]
name = "guestbook"
state = "/var/lib/guestbook"

[services.web]
command = ["python3", "app.py"]
health = "/health"

[services.mail]
command = ["python3", "mail.py"]

[tasks]
migrate = ["python3", "manage.py", "migrate"]

[databases.main]
kind = "sqlite"
path = "shared/app.sqlite3"

[files.media]
path = "shared/media"

[gate]
kind = "front"

[vaults.local]
kind = "local"
path = "/var/backups/guestbook"
"""


def write(folder: Path, text: str = GOOD, name: str = "holdfast.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def read(folder: Path, environment: str | None = None) -> ResolvedConfig:
    return load(str(folder / "holdfast.toml"), environment)


def problems(folder: Path, environment: str | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, environment)
    assert caught.value.exit_code == 3
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def test_a_good_file_is_read_with_its_defaults(folder: Path) -> None:
    write(folder)
    loaded = read(folder)
    assert loaded.configuration.application.environment == "production"
    assert loaded.environment_type == "prod"
    assert loaded.path("shared/media") == folder.resolve() / "shared" / "media"
    assert loaded.state == Path("/var/lib/guestbook")
    assert [loaded.configuration.service_kind(name) for name in ("web", "mail")] == ["web", "worker"]
    assert loaded.origins["files.media.path"] == "holdfast.toml"


def test_what_the_journal_keeps_is_the_same_configuration(folder: Path) -> None:
    write(folder)
    loaded = read(folder)
    again = undump(json.loads(json.dumps(loaded.dump())))
    assert (again.configuration, again.root, again.owner) == (loaded.configuration, loaded.root, loaded.owner)


# --- problems -----------------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once_with_key_and_file(folder: Path) -> None:
    write(
        folder,
        GOOD.replace('kind = "front"', 'kind = "frnt"\ndrain_seconds = "soon"')
        + """
[services.batch]
comand = ["x"]

[files.thumbs]

[colour]
paint = "red"
""",
    )
    write(folder, "[backup]\nkeep = { last = 0 }\npause_limit_seconds = -1\n", "holdfast.production.toml")
    found = problems(folder)
    by_key = {problem.partition(":")[0]: problem for problem in found}
    assert set(by_key) == {
        "gate.kind",
        "gate.drain_seconds",
        "services.batch.comand",
        "files.thumbs.path",
        "colour",
        "backup.keep.last",
        "backup.pause_limit_seconds",
    }
    for key in ("gate.kind", "gate.drain_seconds", "services.batch.comand", "colour"):
        assert by_key[key].rpartition(" (")[2].startswith("holdfast.toml, line "), by_key[key]
    for key in ("backup.keep.last", "backup.pause_limit_seconds"):
        assert by_key[key].rpartition(" (")[2].startswith("holdfast.production.toml, line "), by_key[key]
    assert "unknown key. Did you mean command?" in by_key["services.batch.comand"]
    assert "is missing" in by_key["files.thumbs.path"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[services.batch]\nkind = 'worker'\n", "services.batch.command: is needed"),
        ("[runtime]\nfiles = ['compose.yml']\n", "runtime.files: is for kind compose"),
        ("[runtime]\nkind = 'compose'\ntask_service = 'x'\n", "runtime.task_service: there is no service 'x'"),
        ("[runtime]\nkind = 'compose'\n[source.python]\n", "source.python: is not for containers"),
        ("[runtime]\nkind = 'compose'\n[services.batch]\nhealth_command = ['true']\n", "services.batch.health_command"),
    ],
)
def test_what_belongs_to_another_runtime_is_told(folder: Path, text: str, said: str) -> None:
    write(folder, GOOD + text)
    assert any(said in problem for problem in problems(folder)), problems(folder)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD + "[source]\nbuild = [[1]]\n", id="in a list"),
        pytest.param(GOOD.replace('"shared/media"', '"/var/lib/guestbook/media"'), id="between keys"),
    ],
)
def test_every_problem_names_its_file(folder: Path, text: str) -> None:
    write(folder, text)
    assert all("holdfast.toml" in problem for problem in problems(folder))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('url = "http://registry.example.org/shop"', "packages.registry.url: plain http is accepted on the loopback"),
        ('url = "https://registry.example.org"', "packages.registry.url: expected https://HOST/REPOSITORY"),
        ('url = "https://u:p@registry.example.org/shop"', "packages.registry.url: expected https://HOST/REPOSITORY"),
        ('url = "https://registry.example.org/Shop"', "the repository in lower-case letters"),
        ('url = "https://registry.example.org/../shop"', "packages.registry.url: expected https://HOST/REPOSITORY"),
        ('url = "https://registry.example.org/shop"\nuser = "u"', "packages.registry.user: needs a password"),
        ('url = "https://registry.example.org/shop"\npassword = "clear"', "expected env:NAME, file:PATH"),
        ('url = "http://127.0.0.1:5000/shop"\nca = "ca.pem"', "packages.registry.ca: is for https"),
    ],
)
def test_a_registry_that_cannot_be_meant(folder: Path, lines: str, said: str) -> None:
    write(folder, f"{GOOD}[packages.registry]\n{lines}\n")
    found = problems(folder)
    assert any(said in problem for problem in found), found
    assert not any("clear" in problem for problem in found)


def test_the_password_of_a_registry_may_be_a_secret_that_holdfast_keeps(folder: Path) -> None:
    text = 'url = "https://registry.example.org/shop"\nuser = "u"\npassword = "secret:registry"'
    write(folder, f"{GOOD}[packages.registry]\n{text}\n")
    registry = read(folder).configuration.packages.registry
    assert registry is not None and registry.password == "secret:registry"


@pytest.mark.parametrize("url", ["https://r.example.org:5000/a/b-c", "http://localhost:5000/a", "http://[::1]:5000/a"])
def test_a_registry_that_is_right(folder: Path, url: str) -> None:
    write(folder, f'{GOOD}[packages.registry]\nurl = "{url}"\n')
    assert loading.load(str(folder)).configuration.packages.registry is not None


_KEYS = st.sampled_from(["application", "source", "services", "tasks", "gate", "backup", "files", "nonsense"])
_values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.text(alphabet="abc/: ", max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["name", "web", "kind", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {as_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    return json.dumps(value)


@settings(max_examples=150, deadline=None)
@given(value=st.dictionaries(_KEYS, _values, max_size=4))
def test_any_toml_is_a_configuration_or_a_list_of_problems(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    write(folder, "\n".join(f"{key} = {as_toml(item)}" for key, item in value.items()))
    try:
        read(folder)
    except ConfigurationError as error:
        assert error.problems


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('"/var/backups/guestbook"', '"shared/media/vault"', "vaults.local.path"),
        ('"shared/media"', '"/var/lib/guestbook/media"', "application.state"),
        ('"shared/app.sqlite3"', '"/var/backups/guestbook/app.sqlite3"', "databases.main.path"),
        ("[services.mail]", '[services.mail]\nkind = "web"', "services"),
        ('command = ["python3", "mail.py"]', 'command = ["x"]\nhealth = "/x"', "services.mail.health"),
        ('health = "/health"', 'health = "health"', "services.web.health"),
        ("[services.web]", '[services.web]\nkind = "worker"', "gate.kind"),
        ("[gate]", '[migrations]\nkind = "files"\n[gate]', "migrations.applied"),
        ("[gate]", '[migrations]\nkind = "django"\ndatabase = "other"\n[gate]', "migrations.database"),
        ("[gate]", '[backup.references]\ndatabase = "x"\nfiles = "y"\nquery = "z"\n[gate]', "backup.references.files"),
        ("[gate]", '[vaults.second]\nkind = "local"\npath = "/other"\n[gate]', "vaults"),
        ('name = "guestbook"', 'name = "Guest Book"', "application.name"),
        ('command = ["python3", "mail.py"]', 'command = "python3 mail.py"', "services.mail.command"),
        ("[gate]", '[gate]\nlisten = "8000"', "gate.listen"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(folder: Path, old: str, new: str, wanted: str) -> None:
    assert old in GOOD
    write(folder, GOOD.replace(old, new, 1))
    found = problems(folder)
    assert [problem for problem in found if problem.startswith(f"{wanted}:")], found


def test_an_address_is_asked_for_in_words(folder: Path) -> None:
    (folder / "holdfast.toml").write_text('[application]\nname = "shop"\n[gate]\nlisten = "8000"\n')
    assert problems(folder) == (
        'gate.listen: expected HOST:PORT, such as 127.0.0.1:8000, got "8000" (holdfast.toml, line 4)',
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[gate]\nlisten = 8000", "gate.listen: expected HOST:PORT, such as 127.0.0.1:8000, got 8000 (LINE 4)"),
        ("[application.enviroment]", "application.enviroment: unknown key. Did you mean environment? (LINE 3)"),
        ("[services.web]\ncommand = [\n  'a',\n]\nport = 'x'", "services.web.port: expected a whole number"),
        ("[gate]\ndrain_seconds = 'ten'", 'gate.drain_seconds: expected a number of at least 0, got "ten" (LINE 4)'),
        ("[databases]\nmain = { kind = 'sqlite' }", "databases.main.path: is needed for kind sqlite (LINE 4)"),
        ("[databases.Main]", "databases.Main: expected a name of at most 41 lower-case letters"),
        ("[gate]\nmessage = '''\n[files.x]\n'''\nkind = 'door'", "gate.kind: expected one of front, "),
        ("backup = 5", "backup: expected a table, got 5 (LINE 3)"),
    ],
)
def test_a_problem_is_told_in_words_with_its_line(folder: Path, text: str, problem: str) -> None:
    (folder / "holdfast.toml").write_text(f'[application]\nname = "shop"\n{text}\n')
    if text.startswith("backup"):
        (folder / "holdfast.toml").write_text(f'application.name = "shop"\n\n{text}\n')
    found = problems(folder)
    assert any(one.startswith(problem.replace("LINE", "holdfast.toml, line")) for one in found), found
    assert all("line " in one for one in found)


def test_a_value_that_may_be_a_secret_is_not_shown(folder: Path) -> None:
    write(folder, GOOD.replace('kind = "sqlite"', 'kind = "postgresql"\npassword = "hunter2"'))
    found = [one for one in problems(folder) if one.startswith("databases.main.password")]
    assert len(found) == 1 and "hunter2" not in found[0]
    assert (
        "expected env:NAME, file:PATH, command:ARGV or secret:NAME, got another text (holdfast.toml, line " in found[0]
    )


def test_lines_are_found_behind_texts_and_lists_of_several_lines() -> None:
    text = """a = 1

[b."x y".c]  # a comment
d = [
  "[e]",
]
"f.g" = 1
h = { i = { j = 2 } }
[b]
k = '''
l = 1
'''
m.n = 3
"""
    assert lines_of(text) == {
        "a": 1, "b.x y.c": 3, "b.x y.c.d": 4, "b.x y.c.f.g": 7, "b.x y.c.h": 8, "b.x y.c.h.i": 8, "b.x y.c.h.i.j": 8,
        "b": 9, "b.k": 10, "b.m": 13, "b.m.n": 13,
    }  # fmt: skip


def test_a_file_that_is_no_toml_is_named_with_the_place(folder: Path) -> None:
    write(folder, "[application\n")
    with pytest.raises(ConfigurationError, match=r"holdfast\.toml is not valid TOML") as caught:
        read(folder)
    assert "line 1" in caught.value.problems[0]


def test_a_missing_file_says_how_to_make_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for given_ in (None, str(folder), str(folder / "other.toml")):
        with pytest.raises(NotFoundError) as caught:
            load(given_)
        assert "holdfast init" in caught.value.next_step


def test_it_is_found_in_a_folder_above(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)
    (folder / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(folder / "a" / "b")
    assert load().root == folder.resolve()


# --- overlays, presets, releases ----------------------------------------------------------------------


def test_an_overlay_merges_tables_and_replaces_lists(folder: Path) -> None:
    write(folder)
    write(folder, '[services.web]\ncommand = ["gunicorn"]\n[gate]\nmessage = "Staging"\n', "holdfast.staging.toml")
    loaded = read(folder, "staging")
    web = loaded.configuration.services["web"]
    assert (web.command, web.health) == (["gunicorn"], "/health"), "a list replaces, its table merges"
    assert set(loaded.configuration.services) == {"web", "mail"}
    assert (loaded.configuration.gate.kind, loaded.configuration.gate.message) == ("front", "Staging")
    assert (loaded.configuration.application.environment, loaded.environment_type) == ("staging", "stag")
    assert loaded.origins["services.web.command"] == "holdfast.staging.toml"
    assert loaded.origins["services.web.health"] == "holdfast.toml"
    assert read(folder).configuration.services["web"].command == ["python3", "app.py"]


def test_the_environment_variable_chooses_and_the_option_rules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)
    for name in ("staging", "uat"):
        write(folder, f'[gate]\nmessage = "{name}"\n', f"holdfast.{name}.toml")
    monkeypatch.setenv("HOLDFAST_ENVIRONMENT", "uat")
    assert read(folder).configuration.gate.message == "uat"
    assert read(folder, "staging").configuration.gate.message == "staging"


def test_an_environment_without_a_file_is_refused(folder: Path) -> None:
    write(folder)
    write(folder, "", "holdfast.staging.toml")
    with pytest.raises(NotFoundError) as refused:
        read(folder, "stagign")
    assert refused.value.next_step.startswith("Did you mean staging? ")
    assert "holdfast.stagign.toml" in refused.value.next_step


def test_a_preset_is_the_ground_that_the_file_builds_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = '[tasks]\nmigrate = ["preset"]\nwarm_cache = ["preset"]\n[services.cron]\ncommand = ["cron"]\n'
    monkeypatch.setattr(loading, "presets", lambda: {"blog": preset})
    write(folder, 'extends = "preset:blog"\n' + GOOD)
    loaded = read(folder)
    assert loaded.configuration.tasks.migrate == ["python3", "manage.py", "migrate"]
    assert loaded.configuration.tasks.warm_cache == ["preset"]
    assert set(loaded.configuration.services) == {"cron", "mail", "web"}
    assert loaded.origins["tasks.warm_cache"] == "preset:blog"
    write(folder, 'extends = "preset:blgo"\n' + GOOD)
    (found,) = problems(folder)
    assert "blgo" in found
    assert "blog" in found


@pytest.mark.parametrize("name", sorted(loading.presets()))
def test_every_packaged_preset_is_a_ground_that_holds(folder: Path, name: str) -> None:
    text = f'extends = "preset:{name}"\n[application]\nname = "x"\nstate = "/var/lib/x"\n'
    text += '[vaults.local]\nkind = "local"\npath = "/var/backups/x"\n'
    needs = ("cookiecutter-django", "oroplatform", "orocommerce", "symfony")
    write(folder, text + ('[databases.main]\nname = "x"\nuser = "x"\n' if name in needs else ""))
    assert read(folder).configuration.extends == f"preset:{name}"


RELEASE = """
[application]
name = "renamed"

[tasks]
migrate = ["of", "the", "release"]

[services.web]
command = ["of-the-release"]

[services.cron]
command = ["cron"]

[migrations]
compatible = ["0007_*"]

[gate]
message = "not the release's business"
"""


def test_a_release_brings_its_tasks_services_and_migrations_and_no_more(folder: Path) -> None:
    write(folder)
    loaded = merge_release(read(folder), RELEASE, "holdfast.toml of v2")
    assert loaded.configuration.tasks.migrate == ["of", "the", "release"]
    assert set(loaded.configuration.services) == {"web", "mail", "cron"}
    web = loaded.configuration.services["web"]
    assert (web.command, web.health) == (["of-the-release"], "/health")
    assert loaded.configuration.migrations.compatible == ["0007_*"]
    assert (loaded.configuration.application.name, loaded.configuration.gate.message) == ("guestbook", "")
    assert loaded.origins["tasks.migrate"] == "holdfast.toml of v2"


def test_the_operators_overlay_rules_over_the_release(folder: Path) -> None:
    write(folder)
    write(folder, '[services.web]\ncommand = ["of-the-overlay"]\n', "holdfast.production.toml")
    loaded = merge_release(read(folder), RELEASE, "holdfast.toml of v2")
    assert loaded.configuration.services["web"].command == ["of-the-overlay"]
    assert loaded.configuration.tasks.migrate == ["of", "the", "release"]


def test_the_current_releases_file_is_read_with_the_others(folder: Path) -> None:
    write(folder)
    write(folder / "current", RELEASE)
    loaded = read(folder)
    assert loaded.configuration.tasks.migrate == ["of", "the", "release"]
    assert loaded.origins["tasks.migrate"] == "current/holdfast.toml"
    write(folder / "current", "[tasks]\nmigrat = ['x']\n")
    assert problems(folder) == ("tasks.migrat: unknown key. Did you mean migrate? (current/holdfast.toml, line 2)",)


def test_a_release_without_sections_of_its_own_changes_nothing(folder: Path) -> None:
    write(folder)
    loaded = read(folder)
    assert merge_release(loaded, "[gate]\nmessage = 'x'\n", "v2") is loaded
    with pytest.raises(ConfigurationError, match="v2 is not valid TOML"):
        merge_release(loaded, "[", "v2")


def test_a_release_may_not_say_as_whom_it_runs_nor_which_secrets_it_reads(folder: Path) -> None:
    write(folder, GOOD.replace('command = ["python3", "app.py"]', 'command = ["python3", "app.py"]\nuser = "www-data"'))
    release = """
[services.web]
user = "root"
command = ["of-the-release"]
environment = { LEAK = "file:/etc/shadow", RUN = "command:touch /tmp/x", FROM = "env:HOME", MODE = "fast" }

[services.cron]
command = ["cron"]
user = "root"
"""
    loaded = merge_release(read(folder), release, "holdfast.toml of v2")
    web, cron = (loaded.configuration.services[name] for name in ("web", "cron"))
    assert (web.user, web.command, dict(web.environment)) == ("www-data", ["of-the-release"], {"MODE": "fast"})
    assert cron.user == ""
    assert set(loaded.refused) == {
        "services.web.user",
        "services.cron.user",
        "services.web.environment.LEAK",
        "services.web.environment.RUN",
        "services.web.environment.FROM",
    }


def test_what_a_release_brought_goes_with_it(folder: Path) -> None:
    """The next one's file is merged upon the operator's, never upon that of the release before."""
    write(folder)
    operator = read(folder)
    write(folder / "current", RELEASE + '\n[services.old]\ncommand = ["old"]\n')
    loaded = read(folder)
    assert "old" in loaded.configuration.services
    following = merge_release(loaded, '[tasks]\nmigrate = ["of v3"]\n', "holdfast.toml of v3")
    assert following.configuration.tasks.migrate == ["of v3"]
    assert set(following.configuration.services) == set(operator.configuration.services)
    assert merge_release(loaded, "", "v4").configuration == operator.configuration


def test_a_backend_needs_a_web_that_is_asked_for_both(folder: Path) -> None:
    backend = "[services.batch]\nkind = 'backend'\ncommand = ['true']\n"
    write(folder, GOOD + backend)
    load(str(folder))
    write(folder, GOOD.replace('health = "/health"', "") + backend)
    assert any("services.batch.kind: a backend needs a web" in problem for problem in problems(folder))


def test_a_preset_stands_upon_another_one(folder: Path) -> None:
    own = '[application]\nname = "uso"\n[gate]\nlisten = "127.0.0.1:8081"\n'
    write(folder, f'extends = "preset:uso-nginx"\n{own}')
    found = load(str(folder)).configuration
    assert (found.service_kind("proxy"), found.service_kind("uso"), found.services["uso"].health) == (
        "web",
        "backend",
        "",
    )
    assert found.source.images == [["./deploy/build-image.sh", "nginx"]]
    assert found.databases["main"].container == "compose:database"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('"../x"', "writable: ../x is not a path inside the release"),
        ('{ path = "/etc" }', "writable: /etc is not a path inside the release"),
        ('{ path = "var", mode = "4755" }', 'source.writable.1.mode: expected an octal mode such as 2775, got "4755"'),
        ('{ path = "var", grup = "x" }', "source.writable.1.grup: unknown key. Did you mean group?"),
        ("{ recursive = true }", "source.writable.1.path: is missing"),
        ('"var", 5', "source.writable.2: expected a text or a table, got 5"),
    ],
)
def test_a_wrong_writable_path_is_a_problem(folder: Path, entry: str, said: str) -> None:
    write(folder, f"{GOOD}\n[source]\nwritable = [{entry}]\n")
    (problem,) = problems(folder)
    assert said in problem and "holdfast.toml, line" in problem


def test_writable_tables_are_in_what_the_journal_keeps(folder: Path) -> None:
    write(folder, f'{GOOD}\n[source]\nwritable = ["a", {{ path = "b", recursive = true, mode = "2775" }}]\n')
    loaded = read(folder)
    assert undump(json.loads(json.dumps(loaded.dump()))).configuration == loaded.configuration


def test_overlays_of_type_and_name_are_merged_in_this_order(folder: Path) -> None:
    text = GOOD + '\n[backup]\nconfig_files = ["a", "b"]\n[environment]\nWHO = "base"\nA = "1"\n'
    write(folder, text)
    write(folder, '[environment]\nWHO = "type"\nB = "2"\n[backup]\nconfig_files = ["c"]\n', "holdfast.prod.toml")
    write(folder, '[environment]\nWHO = "name"\n', "holdfast.production.toml")
    found = read(folder)
    assert found.configuration.environment == {"WHO": "name", "A": "1", "B": "2"}, "tables are merged"
    assert found.configuration.backup.config_files == ["c"], "lists are replaced"
    places = Places(found.origins, found.root)
    assert places.at("environment.WHO") == ("holdfast.production.toml", 2)
    assert places.at("environment.B") == ("holdfast.prod.toml", 3)
    assert places.at("environment.A")[0] == "holdfast.toml"
    write(folder, "[gate]\nlisten = 7\n", "holdfast.production.toml")
    assert problems(folder)[0].endswith("(holdfast.production.toml, line 2)")


@pytest.mark.parametrize(
    ("environment", "kind"),
    [("production", "prod"), ("prod", "prod"), ("staging", "stag"), ("stag", "stag"), ("uat", "uat"), ("qa", "dev")],
)
def test_the_name_of_an_environment_says_its_type(folder: Path, environment: str, kind: str) -> None:
    write(folder, GOOD.replace('name = "guestbook"', f'name = "guestbook"\nenvironment = "{environment}"'))
    write(folder, f'[environment]\nTYPE = "{kind}"\n', f"holdfast.{kind}.toml")
    found = read(folder)
    assert (found.environment_type, found.configuration.environment) == (kind, {"TYPE": kind})


def test_the_overlay_of_a_type_cannot_say_which_type_it_is_and_a_name_can(folder: Path) -> None:
    write(folder)
    write(folder, '[application]\ntype = "dev"\n', "holdfast.prod.toml")
    assert "application.type: the overlay of a type cannot set it" in problems(folder)[0]
    write(folder, "", "holdfast.prod.toml")
    write(folder, '[application]\ntype = "uat"\n', "holdfast.qa.toml")
    write(folder, '[environment]\nTYPE = "uat"\n', "holdfast.uat.toml")
    assert read(folder, "qa").configuration.environment == {"TYPE": "uat"}
    assert read(folder, "uat").environment_type == "uat"
    with pytest.raises(NotFoundError, match="'stagin'"):
        read(folder, "stagin")


def test_a_release_has_an_overlay_for_each_type_and_the_operator_has_the_last_word(folder: Path) -> None:
    write(folder, GOOD + '\n[environment]\nA = "base"\n')
    own = ('[tasks]\nwarm_cache = ["common"]\nprepare = ["common"]\n', "v2:holdfast.toml")
    of_type = ('[tasks]\nwarm_cache = ["prod"]\nreindex = ["prod"]\n[gate]\nlisten = "x"\n', "v2:holdfast.prod.toml")
    merged = merge_release(read(folder), *own, of_type=of_type)
    tasks = merged.configuration.tasks
    assert (tasks.prepare, tasks.warm_cache, tasks.reindex) == (["common"], ["prod"], ["prod"])
    assert merged.origins["tasks.warm_cache"] == "v2:holdfast.prod.toml"
    write(folder, '[tasks]\nwarm_cache = ["operator"]\n', "holdfast.prod.toml")
    assert merge_release(read(folder), *own, of_type=of_type).configuration.tasks.warm_cache == ["operator"]
    current = folder / "current"
    write(current, own[0])
    write(current, of_type[0], "holdfast.prod.toml")
    assert read(folder).configuration.tasks.reindex == ["prod"]


def test_a_release_sets_neither_accounts_nor_secrets_of_tasks(folder: Path) -> None:
    write(folder)
    text = (
        '[tasks]\nuser = "root"\n[tasks.install]\ncommands = ["x"]\nuser = "root"\n'
        'environment = { A = "file:/etc/shadow", B = "secret:B", C = "plain" }\n'
    )
    merged = merge_release(read(folder), text, "v2")
    task = merged.configuration.tasks.task("install")
    assert task is not None and (task.user, task.environment) == ("", {"C": "plain"})
    assert merged.configuration.tasks.user == ""
    assert {*merged.refused} == {
        "tasks.user",
        "tasks.install.user",
        "tasks.install.environment.A",
        "tasks.install.environment.B",
    }


def test_files_are_validated_merged_and_alone(folder: Path) -> None:
    base, overlay = write(folder), write(folder, '[gate]\nlisten = "127.0.0.1:9000"\n', "holdfast.stag.toml")
    validate_files([base, overlay])
    validate_files([overlay])
    wrong = write(folder, '[gate]\nlisten = 7\n\n[applicatoin]\nname = "x"\n', "wrong.toml")
    for files in ([wrong], [base, wrong]):
        with pytest.raises(ConfigurationError) as caught:
            validate_files(files)
        text = "\n".join(caught.value.problems)
        assert f"gate.listen: expected HOST:PORT, such as 127.0.0.1:8000, got 7 ({wrong}, line 2)" in text
        assert f"applicatoin: unknown key. Did you mean application? ({wrong}, line 4)" in text
    write(folder, "[gate\n", "wrong.toml")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        validate_files([base, wrong])


@pytest.mark.parametrize("asked", ["gate.listen", "holdfast.gate.listen", "[gate][listen]", "[holdfast][gate][listen]"])
def test_a_key_is_explained_in_both_forms(asked: str) -> None:
    assert explain(asked)[0] == "gate.listen"


def test_every_key_has_a_text() -> None:
    assert [key.path for key in all_keys() if not key.description] == []


@pytest.mark.parametrize("word", ["secret:TOKEN", "--token=secret:TOKEN"])
def test_a_secret_is_never_an_argument(folder: Path, word: str) -> None:
    write(folder, GOOD.replace('"manage.py", "migrate"]', f'"manage.py", "{word}"]'))
    assert "a secret is never an argument" in problems(folder)[0]
    write(folder, GOOD.replace('["python3", "mail.py"]', f'["python3", "{word}"]'))
    assert "services.mail.command: a secret is never an argument" in problems(folder)[0]
