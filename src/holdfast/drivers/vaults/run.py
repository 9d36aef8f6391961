"""An unfinished set in a local vault, under tmp/<run>/."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from itertools import batched
from pathlib import Path

from holdfast import durable
