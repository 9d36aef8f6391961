"""The last look at a sanitized dump: addresses of other domains and raw values are found wherever a block ends."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import RefusedError
from holdfast.sanitize import scan
from holdfast.sanitize.scan import Canary, Scanner

KEY = "c0ffee" * 10
DOMAINS = ("sane.test", "our-firm.example")
RAW = ("Secret-4711", "p4ssw0rd+x", "Zoë@home")


def canary(value: str) -> Canary:
    digest = hashlib.sha256(f"{KEY}:canary:{value}".encode()).hexdigest()
    return Canary("users.password", len(value.encode()), digest)


def verdict(*blocks: bytes) -> str:
    scanner = Scanner(KEY, DOMAINS, [canary(one) for one in RAW])
    try:
        for block in blocks:
            scanner.feed("orders", block)
        scanner.end("orders")
    except RefusedError as error:
        return "address" if "e-mail" in str(error) else "value"
    return "clean"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\tuser_1@sane.test\t2\n", "clean"),
        ("user_1@SANE.Test", "clean"),
        ("a@mail.eu.sane.test, b@our-firm.example.", "clean"),
        ("user_1@sane.test谢谢", "clean"),
        ("no address: a @ b, @x, me@localhost, 5@2.50", "clean"),
        ('{"rule": "@request.auth.id = id && x=@collection.users.name"}', "clean"),
        ("bob@insane.test", "address"),
        ("bob@sane.test.evil.example", "address"),
        ("bob@sane.testing", "address"),
        ("bob@sane-test.example", "address"),
        ("x@sane.test y@company.example", "address"),
        ('{"mail":"bob@company.example"}', "address"),
        ("bob@münchen.example", "address"),
        ("mailto:bob@company.example?subject=x", "address"),
        ("1\tSecret-4711\t2\n", "value"),
        ('{"x":"Secret-4711"}', "value"),
        ("('p4ssw0rd+x',1)", "value"),
        ("first line\\nSecret-4711\\tlast", "clean"),
        ("Secret-47111 xSecret-4711 secret-4711", "clean"),
    ],
)
def test_what_must_not_leave_is_found_and_nothing_else(text: str, expected: str) -> None:
    assert verdict(text.encode()) == expected
    assert verdict(*(bytes([one]) for one in text.encode())) == expected, "a byte at a time"


@given(
    words=st.lists(
        st.sampled_from(
            [
                *RAW,
                *'@.-\\\t\n é"',
                "\\n",
                "\\N",
                "a@sane.test",
                "b@x.sane.test",
                "c@evil.example",
                "@evil.example",
                "sane.test",
                "word",
                "x" * 300,
                "y" * 5000,
            ]
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_where_blocks_end_does_not_matter(words: list[str], cuts: list[int]) -> None:
    data = "".join(words).encode()
    borders = [0, *sorted(cuts), len(data)]
    blocks = [data[start:end] for start, end in pairwise(borders)]
    assert (verdict(*blocks) == "clean") == (verdict(data) == "clean")


def test_a_long_word_is_not_kept_whole() -> None:
    scanner = Scanner(KEY, DOMAINS, [canary(one) for one in RAW])
    for _ in range(50):
        scanner.feed("files", b"A" * 10_000)
    assert len(scanner._rest) < 10_000


def test_the_message_names_places_but_no_value() -> None:
    with pytest.raises(RefusedError, match=r"orders has a value of users\.password") as caught:
        Scanner(KEY, DOMAINS, [canary(RAW[0])]).feed("orders", RAW[0].encode() + b"\n")
    assert RAW[0] not in f"{caught.value} {caught.value.next_step}"


def test_canaries_are_words_that_occur_nowhere_else() -> None:
    assert [scan.is_one_word(one) for one in ("Secret-4711", "two words", "password", "a,b", "x\\ny")] == [
        *(True, False, False, False, False)
    ]
    many = [Canary("c", length, "00") for length in range(8, 30)]
    assert {one.length for one in scan.chosen(many)} == set(range(22, 30))
