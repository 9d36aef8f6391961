"""Opening an application."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.config.load import ResolvedConfig
from holdfast.config.schema import Configuration
from holdfast.config.validation import validate
from holdfast.errors import RefusedError
from holdfast.wiring import open_app
from tests.handles import open_below


def loaded(folder: Path, kind: str) -> ResolvedConfig:
    application = {"name": "guestbook", "type": kind, "state": str(folder / "state")}
    return ResolvedConfig(validate({"application": application}, Configuration), folder)


def test_one_that_is_refused_leaves_its_journal_closed(quick_folder: Path) -> None:
    open_app(loaded(quick_folder, "prod")).close()
    with pytest.raises(RefusedError) as refused:
        open_app(loaded(quick_folder, "dev"))
    assert "set up as prod" in refused.value.what
    assert open_below(quick_folder) == []
