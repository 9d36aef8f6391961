"""Which points a run takes: all of what a change touches, and of the rest another part at each submission.

A *unit* is every m-th point of one scenario. The units of a family of scenarios are spread evenly over its period:
submission K takes the units whose index is K modulo that period, so that each is taken within as many submissions.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

Level = Literal["quick", "submission", "everything"]
LEVELS: tuple[Level, ...] = ("quick", "submission", "everything")
FamilyName = Literal["embedded", "server", "inside", "container", "server_dies", "power", "disk", "durability"]
ALL_STEPS = frozenset({"*"})
_SHARDS: Mapping[FamilyName, int] = {"embedded": 2, "server": 4, "inside": 4, "container": 4}


@dataclass(frozen=True)
class Pace:
    """Every `every`-th point of a scenario is a unit; all units are taken within `period` runs."""

    every: int
    period: int


@dataclass(frozen=True)
class Family:
    """Processor times: of one point, of preparing a scenario, and of all touched points in a submission."""

    point_seconds: float
    preparation_seconds: float
    quick: Pace | None
    submission: Pace
    budget_seconds: float

    def seconds(self, points: float, scenarios: int) -> float:
        """Return what points of some scenarios cost."""
        return points * self.point_seconds + scenarios * self.preparation_seconds


# As `pytest --cpu` measured them; `python -m tests.proof.estimate` adds them up.
FAMILIES: Mapping[FamilyName, Family] = {
    "embedded": Family(0.55, 4, Pace(8, 54), Pace(4, 20), 600),
    "server": Family(1.8, 8, Pace(8, 136), Pace(4, 24), 250),
    "inside": Family(5.0, 15, None, Pace(6, 24), 80),
    "container": Family(6.5, 15, None, Pace(3, 24), 150),
    "server_dies": Family(3.0, 10, None, Pace(4, 24), 60),
    "power": Family(2.0, 6, Pace(8, 96), Pace(4, 24), 100),
    "disk": Family(1.5, 4, Pace(4, 112), Pace(2, 24), 60),
    "durability": Family(1.0, 0, Pace(1, 10), Pace(1, 5), 30),
}
# Tests that are marked to rotate: combinations of what others prove part by part, and variants on another product.
MARKED_PERIOD = {"combination": 6, "variant": 12}


@dataclass(frozen=True)
class Take:
    """The points of one scenario that one test takes."""

    residues: tuple[int, ...]
    every: int
    steps: frozenset[str] = frozenset()  # of these every point, or every `thin`-th where they would cost too much
    thin: int = 1
    thin_offset: int = 0
    shard: int = 0
    shards: int = 1

    def points(self, existing: Sequence[int], step_of: Mapping[int, str | None]) -> list[int]:
        """Return those of the existing points that are taken, in their order."""
        rotated = {point for index, point in enumerate(existing) if index % self.every in self.residues}
        touched = [point for point in existing if self.steps == ALL_STEPS or step_of.get(point) in self.steps]
        return sorted(rotated | set(touched[self.thin_offset :: self.thin]))[self.shard :: self.shards]

    @property
    def is_whole(self) -> bool:
        """Tell whether every point is taken, by this test or by another shard."""
        return len(self.residues) == self.every or (self.steps == ALL_STEPS and self.thin == 1)

    def __str__(self) -> str:
        parts = []
        if len(self.residues) == self.every:
            parts.append("every-point")
        elif self.residues:
            parts.append(f"{'+'.join(map(str, self.residues))}-of-{self.every}")
        if self.steps:
            of = "touched" if self.steps == ALL_STEPS else "touched-steps"
            parts.append(of if self.thin == 1 else f"{of}-{self.thin_offset}-of-{self.thin}")
        if self.shards > 1:
            parts.append(f"shard-{self.shard}")
        return "-".join(parts)


@dataclass(frozen=True)
class Touched:
    """Points of one scenario that a change touches: those of some steps, or all; `points` is how many, about."""

    steps: frozenset[str]
    points: float


@dataclass(frozen=True)
class Selection:
    """What a run takes. `touched` maps a family to its scenarios that a change touches."""

    level: Level
    number: int
    touched: Mapping[FamilyName, Mapping[str, Touched]]
    products: frozenset[str] = frozenset()  # engines whose drivers changed
    summary: str = ""

    def takes(self, family: FamilyName, title: str, titles: Sequence[str], key: str = "") -> list[Take]:
        """Return what tests of one scenario take; empty where it rests in this run.

        `key` names the scenario in `touched` where that is not its title.
        """
        if self.level == "everything":
            return self._sharded(family, Take((0,), 1))
        pace = FAMILIES[family].quick if self.level == "quick" else FAMILIES[family].submission
        residues = tuple(residue for name, residue in self._units(titles, pace) if name == title)
        touched = self.touched.get(family, {}).get(key or title) if self.level == "submission" else None
        if not residues and touched is None:
            return []
        every = pace.every if pace is not None else 1
        part = self._part(family, titles, titles.index(title)) if touched is not None else None
        if touched is None or part is None:
            return [Take(residues, every)] if residues else []
        return [Take(residues, every, touched.steps, *part)]

    def _part(self, family: FamilyName, titles: Sequence[str], place: int) -> tuple[int, int] | None:
        """Return the stride and the first of a scenario's touched points in this submission; None for none.

        Where they are divided among submissions, whole scenarios take turns first, for each has to be prepared.
        """
        shares = self._shares(family)
        turns = min(shares, len(titles))
        if place % turns != self.number % turns:
            return None
        together = [self.touched[family].get(title) for title in titles[place % turns :: turns]]
        known = [one for one in together if one is not None]
        thin = self._divided(family, known) if known else ceil(shares / turns)
        return thin, self.number // turns % thin

    def _units(self, titles: Sequence[str], pace: Pace | None) -> Iterator[tuple[str, int]]:
        """Yield the units of this run."""
        if pace is None:
            return
        units = ((title, residue) for title in titles for residue in range(pace.every))
        for index, unit in enumerate(units):
            if index % pace.period == self.number % pace.period:
                yield unit

    def _shares(self, family: FamilyName) -> int:
        """Return how many submissions share the touched points, where one alone would spend more than its budget."""
        return self._divided(family, self.touched[family].values())

    @staticmethod
    def _divided(family: FamilyName, touched: Collection[Touched]) -> int:
        found = FAMILIES[family]
        return max(1, ceil(found.seconds(sum(one.points for one in touched), len(touched)) / found.budget_seconds))

    @staticmethod
    def _sharded(family: FamilyName, take: Take) -> list[Take]:
        shards = _SHARDS.get(family, 1)
        return [
            Take(take.residues, take.every, take.steps, take.thin, take.thin_offset, shard, shards)
            for shard in range(shards)
        ]

    def takes_marked(self, mark: str, node: str, product: str | None = None) -> bool:
        """Tell whether a test that is marked to rotate is taken."""
        if self.level == "everything":
            return True
        if self.level == "quick":
            return False
        if product is not None and product in self.products:
            return True
        period = MARKED_PERIOD[mark]
        return zlib.crc32(node.encode()) % period == self.number % period

    def _within(self, period: int) -> str:
        return f"all within {period} {'runs' if self.level == 'quick' else 'submissions'}"

    def describe(self) -> list[str]:
        """Return what the rotation of this run is, a line a family."""
        if self.level == "everything":
            return ["every point"]
        lines = []
        for name, family in FAMILIES.items():
            pace = family.quick if self.level == "quick" else family.submission
            if pace is not None:
                lines.append(
                    f"{name}: points {self.number % pace.period} mod {pace.period}, {self._within(pace.period)}"
                )
            if self.level == "submission" and self.touched.get(name):
                shares = self._shares(name)
                part = "every point" if shares == 1 else f"part {self.number % shares} of {shares} (budget)"
                lines.append(f"{name}: {part} of what changed: {', '.join(sorted(self.touched[name]))}")
        if self.level == "submission":
            for mark, period in MARKED_PERIOD.items():
                lines.append(f"{mark}: tests {self.number % period} mod {period}, {self._within(period)}")
        return [*lines, *([self.summary] if self.summary else [])]
