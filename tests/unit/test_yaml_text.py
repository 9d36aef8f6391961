"""Values in the text of a YAML file: every other byte stays."""

from __future__ import annotations

import pytest
import yaml

from holdfast.drivers.gates import yaml_text
from holdfast.errors import RefusedError

TEXT = b"""# the head\r
main:   # of the application
    key: 'a # in a text'   # the instance
    maintenance:    false     # 503 for everyone
    list: [1, 2,
           3]
registry:
    maintenance: {enabled: false}
    "quoted": >
        folded
        text
last: ~
"""


def test_only_the_value_changes() -> None:
    edited = yaml_text.edit(TEXT, {"main.maintenance": "true"})
    assert edited == TEXT.replace(b"    false     #", b"    true     #")


def test_several_keys_of_any_kind() -> None:
    edited = yaml_text.edit(TEXT, {"main.maintenance": "true", "last": '"a: \\"text\\""', "registry.quoted": "x"})
    found = yaml.safe_load(edited)
    assert (found["main"]["maintenance"], found["last"], found["registry"]["quoted"]) == (True, 'a: "text"', "x")
    assert b"# the head\r\n" in edited
    assert b"'a # in a text'   # the instance" in edited


def test_a_key_that_is_missing_is_added() -> None:
    edited = yaml_text.edit(TEXT, {"main.logs.level": "debug"})
    assert yaml.safe_load(edited)["main"]["logs"] == {"level": "debug"}
    assert edited.replace(b"logs:\n      level: debug\n    ", b"") == TEXT


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"a: [1, 2]\n", "a"),
        (b"a: {b: 1}\n", "a.b"),
        (b"a: &x 1\nb: *x\n", "b"),
        (b"a: &x 1\nb: *x\n", "a"),
        (b"- 1\n", "a"),
        (b"a: 1\n", "a.b"),
        (b"a: [\n", "a"),
        (b"", "a"),
    ],
)
def test_what_cannot_be_set_alone_is_refused(text: bytes, key: str) -> None:
    with pytest.raises(RefusedError):
        yaml_text.edit(text, {key: "2"})
