"""A secret's value never reaches a log, in whatever form and however the output is cut."""

from __future__ import annotations

import base64
import itertools
import json
import urllib.parse

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from holdfast.system.redaction import MASK, RedactingStream, Redactor

# Long enough that a base64 form holds something at each alignment; see the test of short ones below.
_secrets = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=9, max_size=24).filter(
    lambda value: len(set(value)) > 4
)
_around = st.binary(max_size=40)

FORMS = {
    "raw": lambda value: value.encode(),
    "url": lambda value: urllib.parse.quote(value, safe="").encode(),
    "url form": lambda value: urllib.parse.quote_plus(value).encode(),
    "json": lambda value: json.dumps({"password": value}).encode(),
    "json utf-8": lambda value: json.dumps({"password": value}, ensure_ascii=False).encode(),
    "base64": lambda value: base64.b64encode(value.encode()),
    "base64 after 1": lambda value: base64.b64encode(b"u" + value.encode() + b"@host"),
    "base64 after 2": lambda value: base64.b64encode(b"u:" + value.encode() + b"@hos"),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(b"u:" + value.encode()),
}


def streamed(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    """What comes out of the stream for data that arrives in pieces."""
    written: list[bytes] = []
    stream = RedactingStream(redactor, written.append)
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        stream.feed(data[start:end])
    stream.close()
    return b"".join(written)


@settings(max_examples=300, deadline=None)
@given(
    secret=_secrets,
    form=st.sampled_from(sorted(FORMS)),
    before=_around,
    after=_around,
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_a_secret_is_masked_in_every_form_across_chunks(
    secret: str, form: str, before: bytes, after: bytes, cuts: list[int]
) -> None:
    shown = FORMS[form](secret)
    assume(shown not in before + after)
    redacted = streamed(Redactor([secret]), before + shown + after, cuts)
    assert shown not in redacted
    assert MASK.encode() in redacted


@settings(max_examples=200, deadline=None)
@given(secret=_secrets, chunks=st.lists(_around, max_size=6))
def test_output_without_a_secret_passes_unchanged(secret: str, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    assume(all(form not in data for form in Redactor([secret])._forms))
    cuts = [sum(map(len, chunks[:number])) for number in range(len(chunks))]
    assert streamed(Redactor([secret]), data, cuts) == data


@settings(max_examples=200, deadline=None)
@given(secret=_secrets, count=st.integers(1, 4), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_each_occurrence_is_masked_once(secret: str, count: int, cuts: list[int]) -> None:
    redacted = streamed(Redactor([secret]), b"\n".join([secret.encode()] * count), cuts)
    assert redacted == b"\n".join([MASK.encode()] * count)


def test_every_cut_of_one_line() -> None:
    data = b'login --password=correct-horse-battery {"p": "correct-horse-battery"}\n'
    for cut in range(len(data)):
        redacted = streamed(Redactor(["correct-horse-battery"]), data, [cut])
        assert redacted == b'login --password=[redacted] {"p": "[redacted]"}\n'


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_cut_of_every_form_gives_what_the_whole_gives(form: str) -> None:
    secret = "p\u00e4ss/w\u00f6rd with \u00fcml\u00e4ut"
    redactor = Redactor([secret])
    data = b"before " + FORMS[form](secret) + b" after"
    whole = redactor.redact(data)
    assert MASK.encode() in whole
    for cut in range(len(data)):
        assert streamed(redactor, data, [cut]) == whole, cut
        assert streamed(redactor, data, list(range(cut, len(data)))) == whole, cut


def test_two_secrets_of_which_one_begins_the_other_across_a_cut() -> None:
    redactor = Redactor(["staging", "staging-horse-battery"])
    data = b"password staging-horse-battery end"
    for cut in range(len(data)):
        assert b"horse" not in streamed(redactor, data, [cut]), cut


def test_two_secrets_that_overlap() -> None:
    redacted = Redactor(["correct-horse", "horse-battery"]).redact(b"correct-horse-battery")
    assert b"correct" not in redacted
    assert b"battery" not in redacted


@pytest.mark.parametrize(
    ("shown", "secret"),
    [
        pytest.param(r'{"p": "ab\/cd\/ef-gh"}', "ab/cd/ef-gh", id="JSON of PHP"),
        pytest.param("ab%2fcd%2fef-gh", "ab/cd/ef-gh", id="URL with small hexadecimal digits"),
        pytest.param(r'{"p": "caf\u00E9-au-lait"}', "café-au-lait", id="JSON with capital hexadecimal digits"),
    ],
)
def test_forms_that_other_encoders_write(shown: str, secret: str) -> None:
    assert MASK in Redactor([secret]).text(shown)


@pytest.mark.parametrize("secret", ["hunter2"])
def test_a_short_secret_in_basic_authentication(secret: str) -> None:
    for user in ("a", "ab", "abc"):
        shown = base64.b64encode(f"{user}:{secret}".encode()).decode()
        assert MASK in Redactor([secret]).text(f"Authorization: Basic {shown}"), user


@settings(max_examples=100, deadline=None)
@given(value=st.text(max_size=3), text=st.text(max_size=40))
@example(value="a", text="banana")
def test_very_short_values_do_not_destroy_the_log(value: str, text: str) -> None:
    clean = text.encode(errors="replace").decode()
    assert Redactor([value]).text(clean) == clean
