"""DokuWiki, a wiki in files on PHP, behind nginx and php-fpm: from 2022-07-31 to 2024-02-06, from Debian's packages."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from tests.realworld import debian
from tests.realworld.application import Application, Client, Repository, Site, then_waits

_LIBRARIES = ["dokuwiki", "libphp-simplepie", "php-geshi", "php-random-compat"]
_OLD = [*_LIBRARIES, "php-phpseclib"]
_NEW = [*_LIBRARIES, "php-phpseclib3", "php-constant-time", "php-kissifrot-php-ixr"]
_LOCAL = "<?php\n$conf['title'] = 'Trial';\n$conf['useacl'] = 0;\n$conf['savedir'] = './data';\n"
_LOSES = "find -L data/pages -name '*.txt' | head -20 | xargs rm; echo 'no space left' >&2; exit 1"
_FPM = """[global]
error_log = /dev/stderr
[web]
listen = var/fpm.sock
pm = static
pm.max_children = 3
"""
_NGINX = """daemon off;
pid var/nginx.pid;
error_log stderr;
events {}
http {
  include /etc/nginx/mime.types;
  access_log off;
  client_body_temp_path var/body;
  fastcgi_temp_path var/fastcgi;
  proxy_temp_path var/proxy;
  scgi_temp_path var/scgi;
  uwsgi_temp_path var/uwsgi;
  server {
    listen 127.0.0.1:{port};
    root {release};
    index doku.php;
    location ~ ^/(conf|data|bin|inc|vendor|var)/ { deny all; }
    location ~ \\.php$ {
      include /etc/nginx/fastcgi_params;
      fastcgi_param HTTP_HOST $http_host;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_pass unix:{release}/var/fpm.sock;
    }
  }
}
"""


class DokuWiki(Application):
    name = "dokuwiki"
    language = "PHP"
    old, new = "2022-07-31", "2024-02-06"
    broken = (("unstartable", "answers 500"), ("dying", "its task deletes files and dies"))
    programs = ("apt-get", "dpkg", "php-fpm8.2", "nginx")
    page = "/doku.php"
    # What the indexer notes, again after a restore, also in the metadata of the pages that a release ships.
    volatile_files = ("*.indexed", "playground", "playground.*", "meta/wiki*", "data/meta/wiki*")

    def prepare(self, site: Site) -> None:
        (site.shared / "conf").mkdir()
        (site.shared / "conf" / "local.php").write_text(_LOCAL)

    def fetch(self, repository: Repository, scratch: Path) -> None:
        for version, packages, suite in ((self.old, _OLD, ""), (self.new, _NEW, "trixie")):
            tree = scratch / version
            debian.unpack(packages, tree, scratch, suite)
            repository.clear()
            _assemble(tree, repository.path)
            repository.write("fpm.conf", _FPM)
            repository.write("nginx.conf", _NGINX)
            repository.tag(version)
        repository.change("unstartable", self.new, {"inc/init.php": "<?php this is no PHP\n"})
        dying = f'[tasks]\nmigrate = ["sh", "-c", {json.dumps(_LOSES)}]\n'
        repository.change("dying", self.new, {"holdfast.toml": dying})
        repository.change("slow", self.new, {"holdfast.toml": then_waits("php bin/indexer.php -q")})

    def configuration(self) -> str:
        return """
[source]
writable = ["var"]
shared = { data = "shared/data/", "conf/local.php" = "shared/conf/local.php" }

[services.fpm]
kind = "backend"
command = ["php-fpm8.2", "--nodaemonize", "--prefix", "{release}", "--fpm-config", "fpm.conf"]
stop_signal = "QUIT"
user = "$account"

[services.web]
command = ["nginx", "-p", "{release}", "-c", "var/nginx.conf"]
files = { "var/nginx.conf" = "nginx.conf" }
health = "/doku.php"
health_contains = "Trial"
stop_signal = "QUIT"
user = "$account"

[tasks]
reindex = ["php", "bin/indexer.php", "-q"]

[files.data]
path = "shared/data"
exclude = ["cache", "tmp", "locks", "index", "log"]
"""

    def fill(self, site: Site) -> None:
        client = site.client()
        for number in range(50):
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        values = {"id": f"trial:{key}", "do[save]": "1", "wikitext": f"text of {key}", "date": "0", "rev": "0"}
        client.form("/doku.php", {**values, "prefix": ".", "suffix": "", "summary": "new"})
        if f"text of {key}" not in client.get(f"/doku.php?id=trial:{key}&do=export_raw"):
            raise ValueError(f"{key} was not saved")

    def written(self, client: Client, site: Site) -> set[str]:
        shown = client.get("/doku.php?id=start&do=index&idx=trial")
        return set(re.findall(r'title="trial:(\w+)"', shown))


def _assemble(tree: Path, target: Path) -> None:
    """Put the files of the packages where upstream has them; libraries into the folder `debian`."""
    share, data = tree / "usr/share", tree / "var/lib/dokuwiki"
    shutil.copytree(
        share / "dokuwiki", target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".htaccess")
    )
    for name in ("plugins", "tpl"):
        link = target / "lib" / name
        if link.is_symlink():
            link.unlink()
        shutil.copytree(data / "lib" / name, link, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(tree / "etc/dokuwiki", target / "conf", ignore=shutil.ignore_patterns("*.auth.php"))
    shutil.copytree(data / "data", target / "data")
    for folder, _, _ in os.walk(target / "data"):
        (Path(folder) / ".keep").touch()  # git knows no empty folders
    for name in ("php", "php-geshi"):
        shutil.copytree(share / name, target / "debian" / name)
    (target / "inc" / "preload.php").unlink()  # it leads to places of Debian's
    for path in target.rglob("*.php"):
        text = path.read_text(errors="surrogateescape")
        if "'/usr/share/php" in text:
            up = "../" * (len(path.relative_to(target).parts) - 1)
            text = text.replace("'/usr/share/php", f"__DIR__ . '/{up}debian/php")
            path.write_text(text.replace("$vendorDir . __DIR__", "__DIR__"), errors="surrogateescape")
