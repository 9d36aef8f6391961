"""The environment of child processes: few variables of the caller for programs, none for the application.

A shell's variables could send git to another repository, a client to another server, or a container engine to another
machine. They could give the application the credentials of whoever ran the command, and they would be missing after a
reboot.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOCALE = "C.UTF-8"

_HANDED_ON = (
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    # Variables for the user's own container engine, its sessions and its keys.
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    # Variables for proxies and certificates of this network, which the downloads of a build need.
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)
ENGINE = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "CONTAINER_HOST",
    "CONTAINER_CONNECTION",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "REGISTRY_AUTH_FILE",
)
"""Variables with the address of the container engine; the application keeps those of its first use."""

_OWN = "HOLDFAST_"
_ELSEWHERE = (
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_CONFIG_GLOBAL",
    "PGHOST",
    "PGPORT",
    "PGSERVICE",
    "PGOPTIONS",
    "MYSQL_HOST",
    "MYSQL_UNIX_PORT",
    "PIP_INDEX_URL",
    "PIP_CONFIG_FILE",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
)


def _account(user: str | None) -> dict[str, str]:
    try:
        found = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    except KeyError:
        return {"HOME": "/"}
    return {"HOME": found.pw_dir, "USER": found.pw_name, "LOGNAME": found.pw_name}


def for_programs(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of programs that Holdfast uses; PATH has the caller's folders, then the standard ones."""
    given = os.environ if given is None else given
    found = _account(None)
    found |= {name: given[name] for name in (*_HANDED_ON, *ENGINE) if given.get(name)}
    found |= {name: value for name, value in given.items() if name.startswith(_OWN)}
    folders = [*given.get("PATH", "").split(":"), *STANDARD_PATH.split(":")]
    found["PATH"] = ":".join(dict.fromkeys(folder for folder in folders if folder.startswith("/")))
    return {**found, "LANG": LOCALE, "LC_ALL": LOCALE}


def for_the_application(
    user: str | None = None, directory: str | os.PathLike[str] | None = None, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment with which services and tasks begin in a directory, the same for every caller."""
    given = os.environ if given is None else given
    own = {name: value for name, value in given.items() if name.startswith(_OWN)}
    if directory is not None:
        own["PWD"] = os.fspath(directory)
    return {**own, **_account(user), "PATH": STANDARD_PATH, "LANG": LOCALE}


def not_obeyed(given: Mapping[str, str] | None = None) -> list[str]:
    """Return the caller's variables that Holdfast ignores because they would send programs elsewhere."""
    given = os.environ if given is None else given
    return [name for name in _ELSEWHERE if given.get(name)]
