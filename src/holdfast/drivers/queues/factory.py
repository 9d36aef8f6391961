"""Opens the queues of one configured broker; its client is imported only then."""

from __future__ import annotations

from holdfast.config.schema import Queues as Configured
from holdfast.drivers.protocols.databases import Changeable
from holdfast.drivers.protocols.queues import Queues
from holdfast.drivers.queues.table import TableQueues
from holdfast.errors import RefusedError
from holdfast.system.host import Host
from holdfast.system.secrets import is_secret


def open_queues(configured: Configured, database: Changeable | None, host: Host) -> Queues:
    """Return the driver. Raise RefusedError where the client's library is not installed."""
    if configured.kind == "table":
        assert database is not None, "the configuration names one"
        statements = {name: getattr(configured, name) for name in ("count", "peek", "purge", "reroute")}
        return TableQueues(database, statements)
    url = host.resolve_secret(configured.url) if is_secret(configured.url) else configured.url
    try:
        if configured.kind == "redis":
            from holdfast.drivers.queues.redis_lists import RedisLists

            return RedisLists(url, configured.names)
        from holdfast.drivers.queues.rabbitmq import RabbitQueues

        return RabbitQueues(url, configured.names)
    except ImportError as error:
        raise RefusedError(
            f"queues of {configured.kind} need the Python package {error.name}",
            next_step="Install it next to Holdfast: pip install 'holdfast[queues]'",
        ) from error
