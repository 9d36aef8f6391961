"""What refuses an operation before anything changes."""

from __future__ import annotations

import pytest

from holdfast.errors import RefusedError
from holdfast.model import Problem
from holdfast.steps.preflight import refuse_errors


def test_an_error_in_data_that_are_replaced_keeps_no_restore_from_beginning() -> None:
    found = [
        Problem("databases.main", "warning", "a warning"),
        Problem("databases.main", "error", "a view cannot be read", "DROP VIEW v", in_content=True),
    ]
    refuse_errors(found, replaced=True)
    with pytest.raises(RefusedError, match="a view cannot be read") as caught:
        refuse_errors(found, replaced=False)
    assert caught.value.next_step == "DROP VIEW v"
    with pytest.raises(RefusedError, match="no right"):
        refuse_errors([*found, Problem("databases.main", "error", "no right")], replaced=True)
