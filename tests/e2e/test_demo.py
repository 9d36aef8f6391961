"""The demo is a test of its own: every figure in its table is asserted."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.combination
def test_the_demo_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "demo", "--json"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(done.stdout)["data"]
    assert figures["ok"] and figures["problems"] == []
    assert figures["failed"] == 0 and figures["lost"] == 0
    assert figures["served"] > 100 and figures["held"] > 0
    assert figures["acknowledged"] > 50
    assert figures["rows"] == 3000 + figures["acknowledged"]
