"""What an operation ran, for `holdfast log show`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.system import durable
from holdfast.system.host import Host


class OperationLog:
    """One JSON-lines file per operation; best effort, for a full disk must not fail an upgrade."""

    def __init__(self, folder: Path, host: Host) -> None:
        self._folder = folder
        self._host = host

    def write(self, record: Mapping[str, Any]) -> None:
        if self._host.operation is None:
            return
        line = json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **record}) + "\n"
        try:
            durable.make_directory(self._folder)
            descriptor = os.open(
                self._folder / f"{self._host.operation}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError:
            pass
