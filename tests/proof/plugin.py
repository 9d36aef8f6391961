"""The options of a run, what it takes, and what it says at its end."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import pytest

from tests import kept
from tests.proof import endings
from tests.proof.leftovers import Run
from tests.proof.rotation import LEVELS, Selection, Touched
from tests.proof.touched import select

_SELECTION = pytest.StashKey[Selection]()
_RUN = pytest.StashKey[Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--proof",
        choices=LEVELS,
        default="quick",
        help="how much is proved: a quick sample; what a submission has to pass; or everything. See CONTRIBUTING.md",
    )
    parser.addoption(
        "--submission", type=int, default=None, metavar="K", help="take the rotation's part of submission K"
    )
    parser.addoption("--since", default=None, metavar="COMMIT", help="take all points of what changed since COMMIT")


def selection_of(config: pytest.Config) -> Selection:
    """Return what this run takes."""
    return config.stash[_SELECTION]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    run = Run()
    config.stash[_RUN] = run
    if run.is_first:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the end of Ctrl-C, which cleans up
    given = getattr(config, "workerinput", {}).get("selection")
    config.stash[_SELECTION] = _read(json.loads(given)) if given is not None else _made(config)


def _made(config: pytest.Config) -> Selection:
    from tests.faults.power_scenarios import TITLES
    from tests.faults.scenarios import ENGINE_SCENARIOS, SCENARIOS
    from tests.site import IN_CONTAINERS

    engines = {scenario.title: scenario.engine for scenario in (*SCENARIOS, *ENGINE_SCENARIOS)}
    level = config.getoption("--proof")
    return select(level, config.getoption("--submission"), config.getoption("--since"), engines, IN_CONTAINERS, TITLES)


def _written(selection: Selection) -> str:
    return json.dumps(asdict(selection), default=sorted)


def _read(value: dict[str, Any]) -> Selection:
    touched = {
        family: {title: Touched(frozenset(one["steps"]), one["points"]) for title, one in titles.items()}
        for family, titles in value["touched"].items()
    }
    return Selection(value["level"], value["number"], touched, frozenset(value["products"]), value["summary"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand what is taken to a process that runs tests: it is found once."""
    node.workerinput["selection"] = _written(node.config.stash[_SELECTION])


def pytest_report_header(config: pytest.Config) -> list[str]:
    selection = selection_of(config)
    return [f"proof: {selection.level}, submission {selection.number}", *(f"  {line}" for line in selection.describe())]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what rests in this run."""
    selection = selection_of(config)
    taken, resting = [], []
    for item in items:
        (taken if _is_taken(selection, item) else resting).append(item)
    if resting:
        config.hook.pytest_deselected(items=resting)
    items[:] = sorted(taken, key=_place_in_run)


def _place_in_run(item: pytest.Item) -> int:
    """Return a number by which long tests begin first, so that no worker is left with one at the end."""
    folders = ("faults", "e2e", "contract", "docs", "unit")
    return next((place for place, name in enumerate(folders) if f"/{name}/" in item.nodeid), len(folders))


def _is_taken(selection: Selection, item: pytest.Item) -> bool:
    if "NOTSET" in item.name:  # a scenario of which nothing is taken
        return False
    for mark in ("combination", "variant"):
        marker = item.get_closest_marker(mark)
        if marker is not None:
            product = str(marker.args[0]) if marker.args else None
            return selection.takes_marked(mark, item.nodeid, product)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        kept.distrust()
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    endings.run()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Look for what is left once all processes that ran tests have ended."""
    run = config.stash[_RUN]
    if run.is_first:
        for line in run.clean():
            print(f"left behind, and removed: {line}")


class _AtOnce:
    """Prints a failure when it happens: the long runs take an hour."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_line(f"{report.nodeid} failed:\n{report.longreprtext[-2000:]}")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(session.config, "workerinput"):  # the process that the others report to
        session.config.pluginmanager.register(_AtOnce(terminal))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what fault and consistency tests measured, and what could not be run here."""
    _print_measured(terminalreporter)
    _print_skipped(terminalreporter)


def _print_measured(terminal: pytest.TerminalReporter) -> None:
    reports = [*terminal.stats.get("passed", []), *terminal.stats.get("failed", [])]
    lines = {f"  {name}: {value}" for report in reports for name, value in getattr(report, "user_properties", [])}
    if not lines:
        return
    terminal.section("measured")
    points = [re.match(r"  kill_points: \S+ \S+ (\d+) of", line) for line in lines]
    taken = sum(int(found[1]) for found in points if found is not None)
    if taken:
        terminal.write_line(f"  kill points taken: {taken}")
    for line in sorted(lines):
        terminal.write_line(line)


def _print_skipped(terminal: pytest.TerminalReporter) -> None:
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminal.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if not reasons:
        return
    terminal.section("not run here")
    for reason, count in reasons.most_common():
        terminal.write_line(f"  {count} test{'s' if count > 1 else ''}: {reason}")
    terminal.write_line("  As root, `make test-setup` installs the programs and servers that tests need.")
