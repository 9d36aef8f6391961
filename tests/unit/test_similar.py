"""What somebody may have meant: close names only, and one exit code for what does not exist."""

from __future__ import annotations

import pytest

from holdfast.config.reference import explain
from holdfast.config.similar import did_you_mean, no_such
from holdfast.errors import NotFoundError


@pytest.mark.parametrize(
    ("typed", "known", "question"),
    [
        ("mian", ["main", "media", "code"], "Did you mean main or media?"),
        ("Media", ["main", "media"], "Did you mean media?"),
        ("v22", ["v1", "v2", "v2.1", "main"], "Did you mean v2?"),
        ("zzz", ["main"], ""),
        ("main", [], ""),
    ],
)
def test_only_what_is_close_is_suggested(typed: str, known: list[str], question: str) -> None:
    assert did_you_mean(typed, known) == question


def test_what_does_not_exist_has_one_exit_code() -> None:
    error = no_such("service", "wbe", ["web", "mail"])
    assert (error.exit_code, error.what) == (4, "there is no service 'wbe'")
    assert error.next_step == "Did you mean web? Known: web, mail."
    assert no_such("service", "wbe", []).next_step == "Known: none."


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("gate.listn", "gate.listen"), ("services.web.comand", "services.web.command"), ("gat", "gate")],
)
def test_a_key_is_suggested_with_the_operators_own_names(typed: str, meant: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        explain(typed)
    assert refused.value.next_step.startswith(f"Did you mean {meant}?")
