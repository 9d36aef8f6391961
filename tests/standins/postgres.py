"""The postgres service of a stand-in: an image that starts as the stock one does, and the maintenance scripts on it.

It has the environment of the stock image (https://hub.docker.com/_/postgres): POSTGRES_USER, POSTGRES_PASSWORD,
POSTGRES_DB, PGDATA and the contents of /docker-entrypoint-initdb.d. Its programs and its /usr/local/bin are this
machine's, so scripts are elsewhere.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import docker, postgresql

DATA = "/var/lib/postgresql/data"
SCRIPTS = "/scripts"

_ENTRYPOINT = """#!/bin/bash
set -e
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
[ "$1" = postgres ] || exec "$@"
mkdir -p "$PGDATA" /var/run/postgresql
chown postgres: "$PGDATA" /var/run/postgresql
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
    [ -n "$POSTGRES_PASSWORD" ] || { echo "POSTGRES_PASSWORD is needed" >&2; exit 1; }
    password=$(as mktemp)
    printf '%s\\n' "$POSTGRES_PASSWORD" >"$password"
    as initdb --username="$POSTGRES_USER" --pwfile="$password" --encoding=UTF8 --locale=C \\
        --auth-local=trust --auth-host=trust --no-sync >/dev/null
    rm "$password"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    as pg_ctl -w -s -o "-c listen_addresses=" start
    if [ "$POSTGRES_DB" != postgres ]; then
        as psql -XqU "$POSTGRES_USER" -d postgres -v db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
    fi
    for file in /docker-entrypoint-initdb.d/*.sql; do
        if [ -e "$file" ]; then as psql -XqU "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"; fi
    done
    as pg_ctl -w -s -m fast stop
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
"""

_NAMES = """export PGHOST="$POSTGRES_HOST" PGPORT="${POSTGRES_PORT:-5432}" PGUSER="$POSTGRES_USER"
export PGPASSWORD="$POSTGRES_PASSWORD" PGDATABASE="$POSTGRES_DB"
"""
_REFUSES = """if [ "$POSTGRES_USER" = postgres ]; then echo "not as the user postgres" >&2; exit 1; fi
"""

# The flaws are those of the real scripts: no dump is tested before the database is dropped, an interrupted dump has the
# name of a good one, and an error in the SQL does not fail the restore.
_BACKUP = f"""#!/bin/bash
set -o errexit -o pipefail -o nounset
{_REFUSES}{_NAMES}file="backup_$(date +%Y_%m_%dT%H_%M_%S).sql.gz"
pg_dump | gzip >"/backups/$file"
echo "SUCCESS: $file"
"""
_BACKUPS = "#!/bin/bash\nls -lht /backups\n"
_RESTORE = f"""#!/bin/bash
set -o errexit -o pipefail -o nounset
[ $# = 1 ] && [ -f "/backups/$1" ] || {{ echo "no such backup; \\`backups\\` lists them" >&2; exit 1; }}
{_REFUSES}{_NAMES}dropdb "$PGDATABASE" --force
createdb --owner="$POSTGRES_USER"
gunzip -c "/backups/$1" | psql "$POSTGRES_DB"
echo "SUCCESS: $1"
"""


def _dockerfile(copies: str) -> str:
    return f"""FROM {docker.IMAGE}
ENV PATH={SCRIPTS}:{postgresql.needed_programs()}:/usr/sbin:/usr/bin:/sbin:/bin PGDATA={DATA}
{copies}
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["{SCRIPTS}/docker-entrypoint.sh"]
CMD ["postgres", "-c", "listen_addresses=*"]
"""


def write(context: Path, place: str) -> None:
    """A Dockerfile and its scripts in a folder below a build context."""
    folder = context / place
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(_dockerfile(f"COPY {place}/scripts {SCRIPTS}"))
    _write_scripts(folder / "scripts", maintenance=True)


def build(folder: Path, tag: str, engine: str = "docker") -> None:
    """The stock image: nothing but the server, under a name as from a registry."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(_dockerfile(f"COPY scripts {SCRIPTS}"))
    _write_scripts(folder / "scripts", maintenance=False)
    subprocess.run([engine, "build", "--quiet", "--tag", tag, str(folder)], capture_output=True, check=True)


def _write_scripts(folder: Path, *, maintenance: bool) -> None:
    folder.mkdir()
    scripts = {"docker-entrypoint.sh": _ENTRYPOINT}
    if maintenance:
        scripts |= {"backup": _BACKUP, "backups": _BACKUPS, "restore": _RESTORE}
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
