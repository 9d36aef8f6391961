"""What a shell says leads no program elsewhere, and nothing of it reaches the application."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from holdfast.system import child_environment
from holdfast.system.accounts import OWN
from holdfast.system.host import Host

LEADING = {
    "GIT_DIR": "/elsewhere",
    "PGHOST": "elsewhere",
    "MYSQL_HOST": "elsewhere",
    "COMPOSE_FILE": "/elsewhere.yml",
    "PIP_INDEX_URL": "http://elsewhere",
    "PYTHONPATH": "/elsewhere",
    "TZ": "Pacific/Kiritimati",
    "LC_ALL": "tr_TR.UTF-8",
    "LANGUAGE": "de",
    "LD_PRELOAD": "/elsewhere.so",
    "VIRTUAL_ENV": "/elsewhere",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "BASH_ENV": "/elsewhere",
    "CDPATH": "/elsewhere",
    "GREP_OPTIONS": "-v",
    "POSIXLY_CORRECT": "1",
    "TAR_OPTIONS": "-v",
}


@pytest.mark.parametrize("name", LEADING)
def test_no_variable_of_the_caller_leads_elsewhere(name: str) -> None:
    for environment in (child_environment.for_programs(LEADING), child_environment.for_the_application(given=LEADING)):
        assert environment.get(name) != LEADING[name]
        assert environment["LANG"] == "C.UTF-8"


def test_nothing_is_enough() -> None:
    """As from cron, or from a unit: no HOME, no PATH."""
    environment = child_environment.for_programs({})
    assert environment["PATH"] == child_environment.STANDARD_PATH
    assert os.path.isabs(environment["HOME"])
    shell = {**LEADING, "HOME": "/elsewhere", "PATH": "/elsewhere"}
    assert child_environment.for_the_application(given={}) == child_environment.for_the_application(given=shell)


def test_a_relative_folder_of_the_path_is_not_looked_in() -> None:
    assert (
        child_environment.for_programs({"PATH": ".:bin::/opt/bin"})["PATH"]
        == f"/opt/bin:{child_environment.STANDARD_PATH}"
    )


def test_the_application_has_its_own_account() -> None:
    environment = child_environment.for_the_application("nobody", given={"HOME": "/root", "USER": "root"})
    assert (environment["USER"], environment["HOME"] != "/root") == ("nobody", True)


def test_commands_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LEADING.items():
        monkeypatch.setenv(name, value)
    arguments = [sys.executable, "-c", "import os; print(sorted(os.environ))"]
    for account in (None, OWN):
        printed = Host().run(arguments, environment={"SITE": "1"}, account=account).output_tail
        assert not set(LEADING) - {"LC_ALL"} & set(printed.split("'"))
        assert "'SITE'" in printed
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.count("PGHOST") == 1
