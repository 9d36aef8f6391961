"""More releases of the guestbook than the demonstration has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

from tests.proof import patience
from tests.site import Site


def add(site: Site, tag: str, base: str, migration: str, text: str) -> None:
    """A tag in the site's repository that has one migration more than the release it is made from."""
    add_files(site, tag, base, {f"migrations/{migration}.py": text})


def add_files(site: Site, tag: str, base: str, files: Mapping[str, str]) -> None:
    """A tag in the site's repository that has other files than the release it is made from."""
    git = ["git", "-C", str(site.repository), "-c", "user.name=Guestbook", "-c", "user.email=guestbook@example.invalid"]
    settings = json.loads(_output([*git, "show", f"{base}:settings.json"]))
    _output([*git, "checkout", "--quiet", "--detach", base])
    for name, text in files.items():
        (site.repository / name).parent.mkdir(parents=True, exist_ok=True)
        (site.repository / name).write_text(text)
    (site.repository / "settings.json").write_text(json.dumps({**settings, "version": tag}))
    _output([*git, "add", "--all"])
    _output([*git, "commit", "--quiet", "--message", f"Guestbook {tag}"])
    _output([*git, "tag", tag])


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=patience.limit(60), check=True).stdout
