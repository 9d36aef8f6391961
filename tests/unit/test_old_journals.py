"""The classes of steps read the journals of an earlier version, and would write the same again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from holdfast.errors import RefusedError
from holdfast.model import CommitFacts, PlanParameters
from holdfast.steps.table import TABLE
from holdfast.steps.typed import check
from tests import journals

NAMES = sorted(path.stem for path in journals.FOLDER.glob("*.json"))
# What a journal cannot have from an operation on a site with SQLite and processes of its own, or did not have then.
UNRECORDED = {
    "backup.check_prune",
    "database.import_cold",
    "database.prove",
    "database.prove_new",
    "files.restore_paths",
    "gate.announce",
    "hook.note",
    "hook.run",
    "index.drop",
    "index.load",
    "index.protect",
    "index.prune",
    "index.rebuild",
    "index.snapshot",
    "index.swap",
    "media.delete",
    "media.upload",
    "migrations.check_loaded",
    "migrations.verify",
    "migrations.verify_none_pending",
    "package.carry",
    "package.fetch",
    "package.patch",
    "package.push",
    "package.record",
    "references.check_loaded",
    "release.adopt",
    "restore.configuration",
    "restore_point.prepare",
    "sanitized.delete",
    "sanitized.publish",
    "sanitized.write",
    "secrets.start_users",
    "secrets.stop_users",
    "secrets.switch",
    "services.prepare",
    "services.remove",
    "task.after_start",
}


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in NAMES:
        for step in journals.recorded(name)["steps"]:
            yield f"{name}: {step['name']}", step


def test_the_story_is_on_record() -> None:
    assert sorted([*journals.STORY, *journals.OF_OTHER]) == NAMES
    assert TABLE.keys() - {step["name"] for _, step in steps()} == UNRECORDED


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_read_and_written_again(name: str) -> None:
    operation = journals.recorded(name)
    for value, struct in ((operation["parameters"], PlanParameters), (operation["commit_facts"], CommitFacts)):
        kept = {key: item for key, item in value.items() if item is not None}
        assert msgspec.json.decode(msgspec.json.encode(msgspec.convert(value, struct))) == kept
    for step in operation["steps"]:
        kind = TABLE[step["name"]]
        check(kind, step["parameters"], step["facts"])
        read = msgspec.convert(step["parameters"], kind)
        assert read.title
        # A field that was added since is written with its default, and a default says that nothing is other than then.
        added = {key: value for key, value in read.parameters.items() if key not in step["parameters"]}
        assert read.parameters == {**step["parameters"], **added}, step["name"]
        assert added.items() <= _defaults(kind).items(), step["name"]
        facts = msgspec.to_builtins(msgspec.convert(step["facts"], kind.facts_type))
        assert facts == step["facts"], step["name"]


_RELEASE = {
    "id": "r1",
    "package": "v1-c1",
    "label": "v1",
    "commit": "c1",
    "path": "/site/app/releases/r1",
    "deployed_at": "2026-01-01T00:00:00Z",
    "operation": "",
}


@pytest.mark.parametrize(
    ("name", "parameters", "facts"),
    [
        ("migrations.verify", {"release": _RELEASE}, {}),
        (
            "release.adopt",
            {"release": _RELEASE},
            {"created": True, "path": "/site/app/releases/r1", "instances": ["web-r1"]},
        ),
        (
            "database.import_cold",
            {"database": "main", "source": "/site/cold", "scratch": "/var/tmp/holdfast-0"},
            {"candidates": {"main": "17"}, "databases": {"main": None}},
        ),
    ],
)
def test_steps_that_the_story_has_not_are_read_as_that_version_wrote_them(
    name: str, parameters: dict[str, Any], facts: dict[str, Any]
) -> None:
    check(TABLE[name], parameters, facts)


def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the fields of a step that have a default, as the journal keeps them."""
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            found[field.encode_name] = msgspec.to_builtins(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            found[field.encode_name] = msgspec.to_builtins(field.default_factory())
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


@pytest.mark.parametrize("kind", ["parameters", "facts"])
def test_a_key_of_another_version_is_refused_wherever_it_is(kind: str) -> None:
    for where, step in steps():
        for changed in _with_another_key(step[kind]):
            with pytest.raises(RefusedError, match=rf"{step['name']} with {kind} of another version"):
                check(TABLE[step["name"]], *({**step, kind: changed}[one] for one in ("parameters", "facts")))
                pytest.fail(f"{where}: {changed}")


def _with_another_key(value: Any) -> Iterator[Any]:
    """Yield copies of parameters or facts, each with one more key: at the top, and in each release."""
    yield {**value, "of_another_version": 1}
    if "release" in value and value["release"] is not None:
        changed = copy.deepcopy(value)
        changed["release"]["of_another_version"] = 1
        yield changed
