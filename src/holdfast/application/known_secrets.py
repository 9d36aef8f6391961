"""Every secret that Holdfast can know, so that output of services is masked whoever resolved what."""

from __future__ import annotations

from holdfast.application.context import ApplicationContext
from holdfast.config.secret_references import everywhere
from holdfast.errors import HoldfastError


def mask(application: ApplicationContext) -> list[str]:
    """Mask the values of all references, and all values that Holdfast keeps or kept; return what cannot be read."""
    unreadable = []
    for key, reference in everywhere(application.loaded.configuration).items():
        try:
            application.host.resolve_secret(reference)
        except HoldfastError:
            unreadable.append(f"{key} ({reference})")
    store = application.host.store
    if store is not None and store.path.exists():
        try:
            for value in store.all_values():
                application.host.redactor.add(value)
        except HoldfastError as error:
            unreadable.append(error.what)
    return unreadable
