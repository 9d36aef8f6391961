"""`python -m holdfast.drivers.runtimes.launch FILE`: becomes the service that FILE describes.

The definition is JSON, so no command or value has to be quoted for supervisord's own syntax; secret references
are resolved here, at the start, and stand in no file.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path


def main() -> None:
    definition = json.loads(Path(sys.argv[1]).read_text())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SUPERVISOR_")}
    for name, value in definition["environment"].items():
        environment[name] = _resolved(value) if value.startswith(("env:", "file:", "command:")) else value
    environment["HOLDFAST_INSTANCE"] = definition["mark"]
    environment["HOLDFAST_RELEASE"] = definition["release"]
    if definition["user"] and os.geteuid() == 0:
        account = pwd.getpwnam(definition["user"])
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        environment.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
    os.chdir(definition["directory"])
    command = definition["command"]
    os.execvpe(command[0], command, environment)


def _resolved(reference: str) -> str:
    from holdfast.host import Host  # most services have no secret

    return Host().resolve_secret(reference)


if __name__ == "__main__":
    main()
