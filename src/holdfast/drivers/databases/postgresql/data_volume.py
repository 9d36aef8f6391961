"""The data directory of a PostgreSQL server in a container: copied aside, recovered, and put in place while it stops.

Holdfast reaches the directory through one-off containers of the server's own image with its volumes, and through single
programs in the server's container. Facts from the documentation: `--volumes-from` mounts what the other container has,
also while that is stopped; a server starts only in a directory that has PG_VERSION; backups, checks and rewinds leave
out whatever has a name that begins with `pgsql_tmp`; a server in single-user mode recovers at its start as any other,
serves nobody, and ends with its input.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from holdfast.containers.container import OPERATION_LABEL
from holdfast.containers.docker import Engine
from holdfast.containers.engines import engine_named
from holdfast.containers.facts import Known
from holdfast.drivers.databases.sql.container_exec import Container
from holdfast.errors import StepError
from holdfast.system import fault_points
from holdfast.system.host import Host

PREFIX = "pgsql_tmp.holdfast."
POINT_FILE = "holdfast.point"
"""A file of the data directory that says which restore point it was recovered to."""
SOCKET_FOLDER = "/dev/shm"
PORT = 5432
_LABEL = "holdfast.database"
_STOP_SECONDS = 20
_ENGINE_SECONDS = 120
_LOOK_SECONDS = 0.05
_ASIDE = "old"
_NEW = "new"

# Everything is made durable by `keep`, whose arguments a simple `sync` does not take.
_COMMON = f"""
set -eu
keep() {{ sync "$@" 2> /dev/null || sync; }}
say() {{
    printf '%s\\n' "$1" > "$folder/exchange.new"
    keep "$folder/exchange.new"
    mv "$folder/exchange.new" "$folder/exchange"
    keep "$folder"
}}
each() {{
    for item in "$1"/base "$1"/global "$1"/pg_* "$1"/backup_label* "$1"/*.signal "$1"/{POINT_FILE}; do
        case ${{item##*/}} in
            pg_log) continue ;;
            base | global | pg_*) if [ -d "$item" ]; then echo "$item"; fi ;;
            *) if [ -f "$item" ]; then echo "$item"; fi ;;
        esac
    done
}}
"""
# Prints where the operation's folder is, who owns the data, and what was done with it; nothing if there is none.
_LOOK = f"""
set -eu
token=$1
shift
for place in "$@"; do
    for data in "$place" "$place"/* "$place"/*/*; do
        folder=$data/{PREFIX}$token
        [ -d "$folder" ] || continue
        line() {{ if [ -e "$2" ]; then echo "$1=$(cat "$2")"; fi; }}
        echo "data=$data"
        echo "owner=$(stat -c %u:%g "$data")"
        line programs "$folder/programs"
        line point "$folder/point"
        line live "$folder/live"
        line exchange "$folder/exchange"
        line recovered "$folder/recovered"
        line present "$data/{POINT_FILE}"
        exit 0
    done
done
"""
# The settings of the live server do not matter for a recovery; nobody connects, or only through /dev/shm.
_FINISH = f"""{_COMMON}
data=$1 folder=$2 programs=$3 point=$4 live=$5 settings=$6
each "$data" | while read -r item; do
    if [ -L "$item" ] || [ ! -O "$item" ]; then
        echo "$item is a link or belongs to another account" >&2
        exit 1
    fi
done
"$programs/postgres" --version > /dev/null
id -un > /dev/null # in single-user mode the server looks up the name of its account
rm -f "$folder/new/postgresql.auto.conf" "$folder/new/backup_manifest"
: > "$folder/new/recovery.signal"
printf '%s' "$settings" > "$folder/server.conf"
echo 'local all all trust' > "$folder/hba.conf"
: > "$folder/ident.conf"
echo "$point" > "$folder/new/{POINT_FILE}"
echo "$point" > "$folder/point"
echo "$live" > "$folder/live"
echo "$programs" > "$folder/programs"
sync -f "$folder" 2> /dev/null || sync
"""
_SETTINGS = """listen_addresses = ''
unix_socket_directories = '{socket}'
port = {port}
max_connections = 30
shared_buffers = '64MB'
dynamic_shared_memory_type = mmap
max_locks_per_transaction = 1024
huge_pages = off
jit = off
autovacuum = off
logging_collector = off
log_destination = 'stderr'
lc_messages = 'C'
wal_level = replica
max_wal_senders = 0
archive_mode = off
hot_standby = off
restore_command = 'false'
recovery_target_name = '{point}'
recovery_target_action = promote
hba_file = '{folder}/hba.conf'
ident_file = '{folder}/ident.conf'
"""
_RECOVER = f"""{_COMMON}
data=$1 folder=$2 programs=$3 next=$4
if [ ! -e "$folder/recovered" ]; then
    "$programs/postgres" --single -D "$folder/new" -c "config_file=$folder/server.conf" template1 < /dev/null
    echo yes > "$folder/recovered"
    keep "$folder/recovered" "$folder"
fi
if [ -n "$next" ]; then
    mkdir -p "$folder/${{next##* }}"
    say "$next"
fi
if [ -e "$folder/exchange" ]; then
    read -r state from to < "$folder/exchange"
    if [ "$state" = out ] && [ -e "$data/PG_VERSION" ]; then
        mv "$data/PG_VERSION" "$folder/$to/"
        keep "$data" "$folder/$to"
    fi
fi
"""
# No server can start in a directory between two states, because PG_VERSION is gone before the stop and comes last.
# Whatever is not a part of the server's data stays: settings, rules of access, logs, certificates.
_EXCHANGE = f"""{_COMMON}
data=$1 folder=$2
read -r state from to < "$folder/exchange"
if [ "$state" = out ]; then
    each "$data" | while read -r item; do mv "$item" "$folder/$to/"; done
    keep "$data" "$folder/$to"
    say "in $from $to"
    state=in
fi
if [ "$state" = in ]; then
    each "$folder/$from" | while read -r item; do mv "$item" "$data/"; done
    keep "$data" "$folder/$from"
    if [ -e "$folder/$from/PG_VERSION" ]; then mv "$folder/$from/PG_VERSION" "$data/"; fi
    keep "$data" "$folder/$from"
    say "done $from $to"
fi
"""
_PARTS = re.compile(r"(base|global|pg_(?!hba\.conf|ident\.conf|log\b).*)(/.*)?$")


@dataclass(frozen=True)
class Found:
    """What one operation left in the data directory. `exchange` is a state and the folders that take part."""

    data: str
    owner: str
    programs: str
    point: str
    live: str
    exchange: str
    recovered: bool
    present: str
    """The point that the data in place were recovered to, if any."""

    @property
    def unfinished(self) -> bool:
        return self.exchange.split(" ")[0] in ("out", "in")


class DataVolume:
    def __init__(self, name: str, container: Container, host: Host) -> None:
        """Take `name`, the dataset's, for messages."""
        self._name = name
        self._container = container
        self._host = host

    @property
    def _engine(self) -> Engine:
        return engine_named(self._container.engine, self._host)

    def _known(self) -> Known:
        found = self._engine.inspected([self._container.name])
        if not found:
            raise StepError(f"database {self._name}: there is no container {self._container.name}")
        return found[0]

    def why_not(self, data: str) -> str:
        """Return why the data directory cannot be exchanged while the container is stopped; empty if it can."""
        known = self._known()
        if known["HostConfig"].get("AutoRemove"):
            return f"container {self._container.name} is removed when it stops"
        mounts = known.get("Mounts") or []
        over = [item for item in mounts if data == item["Destination"] or _below(data, item["Destination"])]
        if not any(item.get("Type") in ("volume", "bind") and item.get("RW", True) for item in over):
            return f"the data directory {data} is in no volume"
        inside = [item["Destination"][len(data) + 1 :] for item in mounts if _below(item["Destination"], data)]
        parts = [place for place in inside if _PARTS.match(place)]
        return f"{parts[0]} of the data directory is a mount of its own" if parts else ""

    # --- programs in the server's container ------------------------------------------------------------

    def in_server(self, owner: str, program: str, *arguments: str) -> None:
        """Run one program of the image's as the data's owner. Raise CommandFailedError."""
        argv = self._container.argv([program, *arguments], [], user=owner)
        self._host.run(argv, timeout_seconds=None)

    def owner(self, data: str) -> str:
        """Return user and group of the data directory, by their numbers."""
        return self._host.capture(self._container.argv(["stat", "-c", "%u:%g", data], [])).strip()

    def free_bytes(self, data: str) -> int:
        lines = self._host.capture(self._container.argv(["df", "-Pk", data], [])).splitlines()
        return int(lines[-1].split()[-3]) << 10

    # --- one-off containers ------------------------------------------------------------------------------

    def _one_off(self, user: str, entry: str, *options: str) -> list[str]:
        return [
            self._container.engine,
            "run",
            "--rm",
            "--network=none",
            "--pull=never",
            "--security-opt=no-new-privileges",
            f"--volumes-from={self._container.name}",
            f"--user={user}",
            "--workdir=/",
            f"--label={_LABEL}={self._container.name}",
            f"--label={OPERATION_LABEL}={self._host.operation or 'none'}",
            f"--entrypoint={entry}",
            *options,
            str(self._known()["Image"]),
        ]

    def _script(self, user: str, script: str, *arguments: str) -> None:
        argv = [*self._one_off(user, "sh"), "-c", script, "sh", *arguments]
        self._host.run(argv, cwd="/", ignore_cancel=True)

    def look(self, token: str) -> Found | None:
        """Return what an operation left, whether the server runs or not."""
        mounts = self._known().get("Mounts") or []
        places = [item["Destination"] for item in mounts if item.get("RW", True)]
        argv = [*self._one_off("0", "sh"), "-c", _LOOK, "sh", token, *places]
        lines = dict(
            line.split("=", 1) for line in self._host.capture(argv, timeout_seconds=_ENGINE_SECONDS).split("\n") if line
        )
        if not lines:
            return None
        texts = {
            key: lines.get(key, "") for key in ("data", "owner", "programs", "point", "live", "exchange", "present")
        }
        return Found(**texts, recovered="recovered" in lines)

    def finish_copy(
        self, owner: str, data: str, token: str, programs: str, point: str, live: str, version: int
    ) -> None:
        """Complete a base backup in the folder `new` of an operation with what a recovery of it needs. Durable."""
        folder = f"{data}/{PREFIX}{token}"
        name = point.partition(".")[2]
        settings = _SETTINGS.format(socket=SOCKET_FOLDER, port=PORT, point=name, folder=folder)
        if version >= 140000:
            settings += "recovery_init_sync_method = syncfs\n"
        self._script(owner, _FINISH, data, folder, programs, point, live, settings)

    def recover(self, found: Found, token: str, *, then: str = "") -> None:
        """Recover the copy to its point, where that is not done.

        `then` is the exchange that is to follow. From then on no server can start in the data directory; one that runs
        already does not notice.
        """
        self._script(found.owner, _RECOVER, found.data, f"{found.data}/{PREFIX}{token}", found.programs, then)

    def exchange(self, found: Found, token: str) -> None:
        """Stop the server, put the other data in place, and start it. Idempotent: what was begun is completed.

        `recover` comes before it.
        """
        known = self._known()
        if known["State"]["Running"] or known["State"].get("Restarting"):
            self._engine.stop(known["Id"], seconds=_STOP_SECONDS)
        fault_points.reach("the server has stopped")
        self._script(found.owner, _EXCHANGE, found.data, f"{found.data}/{PREFIX}{token}")
        self.start()

    def start(self) -> None:
        """Start the container of the server if it does not run. Raise StepError."""
        known = self._known()
        if not known["State"]["Running"]:
            failed = self._engine.start([known["Id"]])
            for text in failed.values():
                raise StepError(f"database {self._name}: container {self._container.name} does not start: {text}")

    def is_steady(self) -> bool:
        """Return whether the server's container runs, and is not one that the engine starts again and again."""
        state = self._known()["State"]
        return bool(state["Running"]) and not state.get("Restarting")

    def halt(self) -> None:
        self._engine.stop(self._known()["Id"], seconds=_STOP_SECONDS)

    def serve(self, found: Found, token: str) -> str:
        """Start a server on the recovered copy in a container without a network; return the container's id."""
        folder = f"{found.data}/{PREFIX}{token}"
        options = ["-D", f"{folder}/{_NEW}", "-c", f"config_file={folder}/server.conf"]
        words = ["--detach", "--stop-signal=SIGINT"]
        argv = [*self._one_off(found.owner, f"{found.programs}/postgres", *words), *options]
        return self._host.capture(argv, timeout_seconds=_ENGINE_SECONDS).strip()

    def end_served(self, id: str) -> None:
        self._engine.end(self._engine.inspected([id]), at_most_seconds=_STOP_SECONDS)

    def end_operation(self, operation: str) -> None:
        """Remove the one-off containers that an operation left. Idempotent. Raise CommandFailedError."""
        labels = (f"{_LABEL}={self._container.name}", f"{OPERATION_LABEL}={operation}")
        while found := self._engine.containers(*labels):
            self._engine.end(found, at_most_seconds=0)
            time.sleep(_LOOK_SECONDS)


FORWARD, BACK = f"out {_NEW} {_ASIDE}", f"out {_ASIDE} {_NEW}"


def _below(place: str, other: str) -> bool:
    return place.startswith(f"{other.rstrip('/')}/")
