"""The backups from which everything that is configured can be restored."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.config.load import ResolvedConfig
from holdfast.model import Backup


def whole(loaded: ResolvedConfig, backups: Sequence[Backup]) -> list[Backup]:
    """Return the backups that contain every configured dataset."""
    names = {*loaded.configuration.databases, *loaded.configuration.files}
    return [backup for backup in backups if names <= set(backup.datasets)]
