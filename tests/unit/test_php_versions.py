"""The order of versions, as PHP has it."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess

import pytest

from holdfast.application.php_versions import compare, newest

VERSIONS = [
    *("v1_2", "v1_10", "v1_9", "v2_10_1", "v2_10", "v2_9", "v1_0a", "v0_1", "v1", "vX"),
    *("1.0", "1.0.0", "1.0-dev", "1.0alpha", "1.0b2", "1.0RC1", "1.0rc1", "1.0pl1", "1.0.p1", "1.0#", "#N#"),
    *("", "1", "1.", "1..2", "-1", "1.2-", "_1", "1_", "a", "abc", "x.y", "1.0 2", "5.1.0", "5.1.0-p1", "2024_01_02"),
]


def test_versions_of_bundles() -> None:
    assert newest(["v2_9", "v2_10_1", "v2_10"]) == "v2_10_1"
    assert [compare("v1_9", "v1_10"), compare("v1_10", "v1_10"), compare("v1_10_1", "v1_10")] == [-1, 0, 1]


@pytest.mark.skipif(shutil.which("php") is None, reason="PHP is not installed")
def test_the_order_is_that_of_php() -> None:
    chance = random.Random(5)
    made = ["".join(chance.choice("v12_.ab-09RCpld+#") for _ in range(chance.randint(1, 7))) for _ in range(60)]
    pairs = list(itertools.product([*VERSIONS, *made], repeat=2))
    code = 'foreach (json_decode(stream_get_contents(STDIN)) as $p) echo version_compare($p[0], $p[1]), "\\n";'
    done = subprocess.run(["php", "-r", code], input=json.dumps(pairs), text=True, capture_output=True, check=True)
    for (first, second), expected in zip(pairs, done.stdout.split(), strict=True):
        assert compare(first, second) == int(expected), (first, second)
