"""Wheels of what the tests themselves have installed: an index is not asked, and what nobody imports is left out."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path, PurePath

_OF_THE_INSTALLATION = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")


def write_wheel(folder: Path, name: str, is_needed: Callable[[PurePath], bool] = lambda _: True) -> Path:
    """Write the wheel of an installed distribution of Python modules alone, with those of its files that are needed."""
    found = metadata.distribution(name)
    stem = f"{found.metadata['Name'].replace('-', '_')}-{found.version}"
    target = folder / f"{stem}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        for path in found.files or ():
            place = str(path)
            if (
                place.startswith("..")  # programs, which an installer makes of the entry points
                or "__pycache__" in path.parts
                or path.name in _OF_THE_INSTALLATION
                or not is_needed(path)
            ):
                continue
            content = path.read_binary()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{place},sha256={digest},{len(content)}\n")
            wheel.writestr(place, content)
        own = next(path.parent for path in found.files or () if path.name == "METADATA")
        wheel.writestr(f"{own}/RECORD", "".join([*record, f"{own}/RECORD,,\n"]))
    return target
