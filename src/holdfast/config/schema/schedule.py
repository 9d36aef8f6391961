"""Scheduled tasks: commands of the application that run at given times, in UTC."""

from datetime import UTC
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from holdfast.config.schema.services import Task

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration

CRON_FIELDS = ("minute", "hour", "monthday", "month", "weekday")
"""The fields of a cron expression in their order."""
SERVICE = "schedule"
"""The name of the service that starts scheduled tasks."""


class Schedule(Task, frozen=True):
    minute: Annotated[str, Meta(min_length=1, description="Minutes, as in a crontab: `*`, `0`, `*/5`, `0,30`.")] = "*"
    hour: Annotated[str, Meta(min_length=1, description="Hours, in UTC.")] = "*"
    monthday: Annotated[str, Meta(min_length=1, description="Days of the month.")] = "*"
    month: Annotated[str, Meta(min_length=1, description="Months: numbers or `jan` to `dec`.")] = "*"
    weekday: Annotated[
        str, Meta(min_length=1, description="Days of the week: 0 to 7 or `sun` to `sat`; 0 and 7 are Sunday.")
    ] = "*"
    every_seconds: Annotated[
        int, Meta(ge=0, description="Instead of these: run again this long after the last start.")
    ] = 0

    @property
    def cron(self) -> str:
        """Return the cron expression; empty where the task runs at intervals."""
        return "" if self.every_seconds else " ".join(getattr(self, field) for field in CRON_FIELDS)

    def problems(self) -> list[str]:
        given = [field for field in CRON_FIELDS if getattr(self, field) != "*"]
        if self.every_seconds and given:
            return [*super().problems(), f"every_seconds: is instead of {', '.join(given)}, not with them"]
        return [*super().problems(), *self._wrong_fields(given)]

    def _wrong_fields(self, given: list[str]) -> list[str]:
        if not given:
            return []
        from datetime import datetime

        from cronsim import CronSim, CronSimError

        problems = []
        for field in given:
            text = getattr(self, field)
            expression = " ".join(text if one == field else "*" for one in CRON_FIELDS)
            try:
                if len(text.split()) != 1:
                    raise CronSimError("a field has no blanks")
                CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC))
            except CronSimError:
                problems.append(f"{field}: {text!r} is not valid in a crontab")
        if not problems:
            try:  # each field may be right, and there is no such day
                next(CronSim(self.cron, datetime(2024, 1, 1, tzinfo=UTC)))
            except (CronSimError, StopIteration):
                problems.append(f"{given[0]}: there is no such time: {self.cron}")
        return problems

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if configuration.runtime.kind == "compose":
            return ["commands: is for runtime.kind supervisor; write a scheduler into the Compose files as a service"]
        return []
