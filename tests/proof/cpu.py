"""The processor time of every test, with all processes that it starts: what the suite's budget is counted in.

Each process that runs tests moves into a control group of its own; servers, engines and what they start stay in it.
Where control groups cannot be written (an ordinary user, a container), the times of the process and of its ended
children are taken instead, which miss what outlives a test.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections import Counter
from pathlib import Path

import pytest

_ACCOUNTING = Path("/sys/fs/cgroup/cpuacct")  # version 1
_UNIFIED = Path("/sys/fs/cgroup")
_PARENT = "holdfast-tests"


class Meter:
    """Reads the processor time that this process and its descendants have used."""

    def __init__(self, name: str) -> None:
        self._group: Path | None = None
        self._home: Path | None = None
        for root, version in ((_ACCOUNTING, 1), (_UNIFIED, 2)):
            usage = "cpuacct.usage" if version == 1 else "cpu.stat"
            if not (root / "cgroup.procs").exists() or not os.access(root / "cgroup.procs", os.W_OK):
                continue
            group = root / f"{_PARENT}-{name}"
            try:
                group.mkdir(exist_ok=True)
                (group / "cgroup.procs").write_text(str(os.getpid()))
                (group / usage).read_text()
            except OSError:
                continue
            self._group, self._home = group, root
            break

    @property
    def follows_everything(self) -> bool:
        return self._group is not None

    @property
    def path(self) -> str | None:
        """The group's path below the root of the hierarchy, for engines that make groups of their own."""
        return f"/{self._group.name}" if self._group is not None else None

    def seconds(self) -> float:
        if self._group is None:
            used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            return sum(usage.ru_utime + usage.ru_stime for usage in used)
        if (self._group / "cpuacct.usage").exists():
            return int((self._group / "cpuacct.usage").read_text()) / 1e9
        stat = dict(line.split() for line in (self._group / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6

    def close(self) -> None:
        """Leaves the group and removes it, once nothing is in it."""
        if self._group is None or self._home is None:
            return
        with contextlib.suppress(OSError):
            (self._home / "cgroup.procs").write_text(str(os.getpid()))
            for inner in sorted(self._group.rglob("*/"), reverse=True):
                inner.rmdir()
            self._group.rmdir()


class Plugin:
    """Adds the seconds to each report; the process that the others report to prints where they went."""

    def __init__(self, config: pytest.Config) -> None:
        worker = getattr(config, "workerinput", {}).get("workerid", "main")
        run = os.environ["HOLDFAST_TESTS_RUN"]
        self._meter = Meter(f"{run}-{worker}")
        self._reports = not hasattr(config, "workerinput")
        self._last = self._meter.seconds()
        self._first = self._last
        self._by_file: Counter[str] = Counter()
        self._by_test: Counter[str] = Counter()
        self._workers: dict[str, float] = {}
        self._config = config
        if self._meter.path is not None:
            os.environ["TESTS_CONTROL_GROUP"] = self._meter.path

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
        report = yield
        now = self._meter.seconds()
        report.cpu_seconds, self._last = now - self._last, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seconds = float(getattr(report, "cpu_seconds", 0.0))
        self._by_file[report.nodeid.partition("::")[0]] += seconds
        self._by_test[report.nodeid] += seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if not self._reports:
            self._config.workeroutput["cpu_seconds"] = self._meter.seconds() - self._first  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        output = getattr(node, "workeroutput", None) or {}
        gateway = str(getattr(getattr(node, "gateway", None), "id", "?"))
        self._workers[gateway] = float(output.get("cpu_seconds", 0.0))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        own = self._meter.seconds() - self._first
        total = own + sum(self._workers.values())
        in_tests = sum(self._by_file.values())
        terminalreporter.section("processor seconds")
        followed = "" if self._meter.follows_everything else " (without what outlives a test: no control groups here)"
        terminalreporter.write_line(
            f"  {total:.0f} in all, {in_tests:.0f} of them in {len(self._by_test)} tests{followed}"
        )
        if not self._config.getoption("--cpu"):
            return
        for name, seconds in self._by_file.most_common():
            count = sum(test.startswith(f"{name}::") for test in self._by_test)
            terminalreporter.write_line(
                f"  {seconds:7.1f}  {100 * seconds / max(in_tests, 0.001):4.1f} %  {name} ({count} tests)"
            )
        terminalreporter.write_line("  the costliest tests:")
        for name, seconds in self._by_test.most_common(40):
            terminalreporter.write_line(f"  {seconds:7.1f}  {name}")

    def pytest_unconfigure(self) -> None:
        self._meter.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", action="store_true", help="print which files and tests the processor time went to")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Plugin(config), "processor-seconds")
