"""A borrowed site with services that only exist, as those that work in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests import kept
from tests.e2e.cli import succeed
from tests.site import Site


def service(name: str, kind: str, *, instances: int = 1) -> str:
    """Return the section of such a service."""
    lines = [f"[services.{name}]", f'kind = "{kind}"', 'command = ["sleep", "86400"]', "settle_seconds = 0.05"]
    lines += [f"instances = {instances}"] if instances > 1 else []
    return "\n" + "\n".join(lines) + "\n"


@contextmanager
def site(*services: str) -> Iterator[Site]:
    """Lend a site on which these services run, too."""
    with kept.site() as lent:
        lent.config.write_text(lent.config.read_text() + "".join(services))
        succeed(lent, "service", "start")
        yield lent
