"""The types of environments, and the overlays of one environment in the order in which they are merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import ConfigurationError

TYPES = ("dev", "stag", "uat", "prod")
_BY_NAME = {"production": "prod", "staging": "stag", **{name: name for name in TYPES}}
# These say which overlay is read, so the overlay of a type cannot set them.
_NOT_OF_A_TYPE = ("name", "environment", "type")


def type_of(environment: str, configured: object = None) -> str:
    """Return the type of an environment: as configured, or by its name; any other name is that of a development."""
    return configured if isinstance(configured, str) and configured in TYPES else _BY_NAME.get(environment, "dev")


def is_known_name(environment: str) -> bool:
    """Return whether a name alone says which type of environment it is."""
    return environment in _BY_NAME


def overlay_names(environment: str, environment_type: str) -> list[str]:
    """Return the names of the overlays of an environment: that of its type, then its own, which has the last word."""
    return list(dict.fromkeys(f"holdfast.{name}.toml" for name in (environment_type, environment)))


def overlays(folder: Path, environment: str, environment_type: str) -> list[Path]:
    """Return the overlays that exist, in the order in which they are merged."""
    return [folder / name for name in overlay_names(environment, environment_type) if (folder / name).is_file()]


def named(folder: Path) -> list[str]:
    """Return the names for which there is an overlay next to holdfast.toml."""
    return sorted(one.name.split(".")[1] for one in folder.glob("holdfast.*.toml"))


def refuse_type_in(overlay: Path, table: Mapping[str, object], environment: str) -> None:
    """Raise ConfigurationError where the overlay of a type says which environment, or which type, this is."""
    application = table.get("application")
    if overlay.name == f"holdfast.{environment}.toml" or not isinstance(application, Mapping):
        return
    found = [f"application.{key}" for key in _NOT_OF_A_TYPE if key in application]
    if found:
        raise ConfigurationError(
            f"{overlay} is wrong",
            [f"{key}: the overlay of a type cannot set it, because it is read by it" for key in found],
            next_step=f"Set it in holdfast.toml or in holdfast.{environment}.toml.",
        )
