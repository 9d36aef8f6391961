"""The answers of supervisord as its own client reads them, held to the library that writes them."""

from __future__ import annotations

import xmlrpc.client

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.runtimes.supervisor.interface import RefusedCallError, _read, _value

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
scalars = st.one_of(st.integers(-(2**31), 2**31 - 1), st.booleans(), texts)
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)), max_leaves=20)


@given(values)
def test_an_answer_is_what_was_written(value: object) -> None:
    assert _read(xmlrpc.client.dumps((value,), methodresponse=True).encode()) == value


@given(st.one_of(texts, st.booleans()))
def test_an_argument_is_read_as_it_is(value: str | bool) -> None:
    call = f"<methodCall><methodName>m</methodName><params><param><value>{_value(value)}</value></param></params>"
    assert xmlrpc.client.loads(f"{call}</methodCall>") == ((value,), "m")


def test_a_fault_is_a_refusal() -> None:
    with pytest.raises(RefusedCallError, match=r"^BAD_NAME: <web>$"):
        _read(xmlrpc.client.dumps(xmlrpc.client.Fault(10, "BAD_NAME: <web>")).encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"Not Found", b"<methodResponse>", b"<methodResponse/>", b"<r><value><int>x</int></value></r>"],
)
def test_anything_else_is_no_answer(content: bytes) -> None:
    with pytest.raises(OSError, match="not understood"):
        _read(content)


def test_a_value_without_a_type_is_a_text() -> None:
    assert _read(b"<methodResponse><params><param><value>plain</value></param></params></methodResponse>") == "plain"
