"""What a change touches: from the files that changed since what landed to the points that stand for them."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

from tests.proof.rotation import ALL_STEPS, FamilyName, Level, Selection, Touched

ROOT = Path(__file__).parent.parent.parent
SUBMISSION = Path(__file__).parent / "submission.toml"
POINTS = ROOT / "tests" / "faults" / "points.json"
_SOURCE = ROOT / "src"
_UNKNOWN_POINTS = 100
# These run under every step of every operation.
_ENGINE = (
    "holdfast.engine",
    "holdfast.system",
    "holdfast.model",
    "holdfast.wiring",
    "holdfast.application.application",
    "holdfast.application.context",
    "holdfast.operations.recover",
    "holdfast.operations.parts",
)
_STEPS = ("holdfast.steps.", "holdfast.application.")
# Which file plans an operation, by the first matching kind in the journal.
_OPERATIONS = {
    "backup.create": "backup",
    "backup.restore_paths": "restore_paths",
    "backup.restore": "restore",
    "backup.prune": "prune",
    "backup.export": "export",
    "backup.sanitized": "sanitized",
    "import": "import_",
    "package": "package",
    "patch": "patches",
    "maintenance": "maintenance",
    "media": "media",
    "secret": "secret",
    "service": "service",
    "upgrade": "upgrade",
    "cache": "cache",
    "rollback": "rollback",
    "install": "install",
    "clone": "clone",
    "adopt": "adopt",
}
# Modules that are started as programs of their own, which no import of a driver names.
_PROGRAMS = {
    "holdfast.drivers.runtimes.supervisor.driver": (
        "holdfast.drivers.runtimes.supervisor.launch",
        "holdfast.drivers.runtimes.supervisor.schedule",
    ),
    "holdfast.drivers.gates.front.driver": ("holdfast.drivers.gates.front.server",),
}


# --- files ------------------------------------------------------------------------------------------


def submission() -> tuple[int, str]:
    """Return the number of this submission and the commit that it began from."""
    found = tomllib.loads(SUBMISSION.read_text())
    return int(found["number"]), str(found["landed"])


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def changed_files(landed: str) -> set[str] | None:
    """Return the paths that differ from a commit, in the tree as it is; None where the history cannot tell."""
    differing = _git("diff", "--name-only", landed, "--")
    unknown = _git("ls-files", "--others", "--exclude-standard")
    if differing is None or unknown is None:
        return None
    return {*differing.split("\n"), *unknown.split("\n")} - {""}


# --- modules ----------------------------------------------------------------------------------------


def module_of(path: str) -> str | None:
    """Return the name of a module of the product by its path in the tree."""
    if not (path.startswith("src/holdfast/") and path.endswith(".py")):
        return None
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _file_of(module: str) -> Path | None:
    stem = _SOURCE / module.replace(".", "/")
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()), None)


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of the product that a module names in its import statements."""
    path = _file_of(module)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())) if path is not None else ():
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(name for name in found if name.startswith("holdfast.") and _file_of(name) is not None)


def closure(modules: Iterable[str], within: str | tuple[str, ...]) -> frozenset[str]:
    """Return modules and all that they import, directly or not, below some packages."""
    found: set[str] = set()
    waiting = [name for module in modules for name in (module, *_PROGRAMS.get(module, ()))]
    while waiting:
        module = waiting.pop()
        if module in found or not module.startswith(within):
            continue
        found.add(module)
        waiting += _imports(module)
        waiting += _PROGRAMS.get(module, ())
    return frozenset(found)


# --- what they stand for ----------------------------------------------------------------------------


def _is_engine(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _ENGINE)


def touched_steps(modules: set[str]) -> set[str]:
    """Return the names of steps whose code, or what it imports of the other steps, is among changed modules."""
    from holdfast.steps import table

    return {
        name
        for name, functions in table.functions().items()
        if modules & closure({function.__module__ for function in functions}, _STEPS)
    }


def touched_operations(modules: set[str]) -> set[str]:
    """Return the kinds of operations whose plan is made by changed modules."""
    return {
        kind
        for kind, name in _OPERATIONS.items()
        if modules & closure({f"holdfast.operations.{name}"}, "holdfast.operations.")
    }


def drivers_of(engine: str) -> frozenset[str]:
    """Return the modules of the drivers that a scenario's engine stands for."""
    from holdfast.config.kinds import DATABASES, INDICES
    from holdfast.drivers.files import factory as files
    from holdfast.drivers.gates import factory as gates
    from holdfast.drivers.packages import factory as packages
    from holdfast.drivers.runtimes import factory as runtimes
    from holdfast.drivers.vaults import factory as vaults
    from tests.site import IN_AN_INDEX

    application: list[Callable[[], Callable[..., object]]] = []
    modules = set()
    if engine == "sqlite":
        modules.add(DATABASES["sqlite"])
        application += [
            files.KINDS["local"],
            vaults.KINDS["local"],
            gates.KINDS["front"],
            runtimes.KINDS["supervisor"],
            packages.KINDS["archive"],
        ]
    elif engine.startswith(("compose", "podman")):
        application += [runtimes.KINDS["compose"], packages.KINDS["images"]]
    elif engine in IN_AN_INDEX:
        modules.add(INDICES["elasticsearch"])
        if IN_AN_INDEX[engine] != "sqlite":
            modules.add(DATABASES[IN_AN_INDEX[engine]])
    else:
        modules.add(DATABASES[engine.removesuffix("-inside").removesuffix("-log")])
    modules |= {imported().__module__ for imported in application}
    return closure(modules, ("holdfast.drivers.", "holdfast.containers."))


class Known:
    """What tests/faults/points.json says of a scenario: the least number of its points, its operation and its steps."""

    def __init__(self, facts: Mapping[str, object]) -> None:
        points, steps = facts["points"], facts["steps"]
        assert isinstance(points, int) and isinstance(steps, list)
        self.points = points
        self.operation = str(facts["operation"])
        self.steps = frozenset(map(str, steps))

    def of_steps(self, steps: set[str]) -> Touched | None:
        """Return the points of those of its steps that are among some; None where it has none of them."""
        found = self.steps & steps
        return Touched(found, self.points * len(found) / len(self.steps)) if found else None


def known_scenarios(text: str | None = None) -> dict[str, Known]:
    """Return what is on record of each scenario."""
    return {title: Known(facts) for title, facts in json.loads(text or POINTS.read_text()).items()}


def _touched_scenarios(
    modules: set[str], engines: Mapping[str, str], containers: Sequence[str], new: Set[str]
) -> dict[FamilyName, dict[str, Touched]]:
    """Return the touched kill-point scenarios; `engines` maps the title of each to its engine."""
    known = known_scenarios()
    steps, kinds = touched_steps(modules), touched_operations(modules)
    engine_changed = any(_is_engine(module) for module in modules)
    found: dict[FamilyName, dict[str, Touched]] = {"embedded": {}, "server": {}, "inside": {}, "container": {}}
    for title, engine in engines.items():
        scenario = known.get(title)
        points = scenario.points if scenario is not None else _UNKNOWN_POINTS
        of_steps = scenario.of_steps(steps) if scenario is not None else None
        whole = engine_changed or title in new or bool(modules & drivers_of(engine))
        if engine == "sqlite":
            planned = scenario is not None and any(scenario.operation.startswith(kind) for kind in kinds)
            if whole or of_steps is not None or planned:
                found["embedded"][title] = Touched(ALL_STEPS, points)
        elif whole or of_steps is not None:
            family: FamilyName = (
                "container" if engine in containers else "inside" if engine.endswith("-inside") else "server"
            )
            found[family][title] = Touched(ALL_STEPS, points) if whole or of_steps is None else of_steps
    return found


def _touched_disks(
    embedded: Mapping[str, Touched], scenarios: Mapping[str, str]
) -> dict[FamilyName, dict[str, Touched]]:
    """Return the scenarios that lose power or space and whose operation is touched; `scenarios` names its title."""
    found = {name: embedded[title] for name, title in scenarios.items() if title in embedded}
    # Power is lost and space runs out before and after each journal write, on four layouts.
    disks = {name: Touched(ALL_STEPS, touched.points * 2) for name, touched in found.items()}
    return {"power": disks, "disk": disks, "durability": {title: Touched(ALL_STEPS, 1) for title in embedded}}


def select(
    level: Level,
    number: int | None,
    landed: str | None,
    engines: Mapping[str, str],
    containers: Sequence[str],
    disks: Mapping[str, str],
) -> Selection:
    """Return what a run takes; `number` and `landed` replace those of this submission."""
    own_number, own_landed = submission()
    number, landed = own_number if number is None else number, landed or own_landed
    if level != "submission":
        return Selection(level, number, {})
    changed = changed_files(landed)
    if changed is None:
        return Selection(
            level, number, {}, summary=f"what changed since {landed[:12]} is not known here: rotation alone"
        )
    modules = {name for name in map(module_of, changed) if name is not None}
    before = _git("show", f"{landed}:{POINTS.relative_to(ROOT)}")
    known = json.loads(before) if before is not None else {}
    # A record of numbers alone was one of some scenarios; what is missing in it may have been there all the same.
    new = set(engines) - set(known) if all(isinstance(facts, dict) for facts in known.values()) else set()
    found = _touched_scenarios(modules, engines, containers, new)
    products = frozenset(engine for engine in set(engines.values()) if modules & drivers_of(engine))
    summary = f"changed since {landed[:12]}: {len(changed)} files, {len(modules)} of them modules of the product"
    return Selection(level, number, {**found, **_touched_disks(found["embedded"], disks)}, products, summary)
