"""What a Valkey says of itself by INFO. Each scrape has a connection of its own: it takes a millisecond, and
none is ever found lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from gamma_orch.exporter.contract import VALKEY, Valkey
from gamma_orch.exporter.source import Failed, Parts, family, reason
from gamma_orch.targets.embedded_valkey import EmbeddedValkey

Info = dict[str, Any]
# What INFO calls them.
FIELDS = {
    "valkey_connected_clients": "connected_clients",
    "valkey_used_memory_bytes": "used_memory",
    "valkey_max_memory_bytes": "maxmemory",
    "valkey_hits_total": "keyspace_hits",
    "valkey_misses_total": "keyspace_misses",
    "valkey_evicted_total": "evicted_keys",
    "valkey_expired_total": "expired_keys",
    "valkey_commands_total": "total_commands_processed",
}


class ValkeySource:
    def __init__(self, valkey: Valkey) -> None:
        self._server = valkey.server

    async def collect(self, seconds: float) -> Parts:
        where = self._server.where
        info: Info = {}
        fault = None
        try:
            async with asyncio.timeout(seconds):
                info = await self._info()
        except TimeoutError:
            fault = Failed(f"{where} does not answer in {seconds:.3g} seconds.", late=True)
        except (RedisError, OSError, ValueError) as error:
            fault = Failed(f"{where} {_said(error)}.")
        yield family("valkey_up", VALKEY["valkey_up"], [({}, not fault)])
        for each in _families(info):
            yield each
        if fault is not None:
            raise fault

    def close(self) -> None:
        pass

    async def _info(self) -> Info:
        if self._server.url is not None:
            url = self._server.url.get_secret_value()
        else:
            assert self._server.home is not None
            url = EmbeddedValkey(Path(self._server.home)).url
        async with Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
            info: Info = await client.info()
            return info


def _families(info: Info) -> Iterator[Metric]:
    for name, field in FIELDS.items():
        if field in info:
            yield family(name, VALKEY[name], [({}, info[field])])
    keys = [({"db": key[2:]}, said["keys"]) for key, said in info.items() if _is(key, "db")]
    yield family("valkey_keys", VALKEY["valkey_keys"], keys)
    lags = [
        ({"peer": f"{said['ip']}:{said['port']}"}, said["lag"])
        for key, said in info.items()
        if _is(key, "slave") and "lag" in said
    ]
    if info.get("master_last_io_seconds_ago", -1) >= 0:  # it is a replica itself
        peer = f"{info['master_host']}:{info['master_port']}"
        lags.append(({"peer": peer}, info["master_last_io_seconds_ago"]))
    yield family("valkey_replication_lag_seconds", VALKEY["valkey_replication_lag_seconds"], lags)


def _said(error: Exception) -> str:
    """Not in Valkey's words, which name the user."""
    match error.__cause__ or error:  # redis-py wraps what goes wrong while it connects
        case AuthenticationError():
            return "does not accept the password"
        case ResponseError() as refusal:
            return f"refuses INFO ({type(refusal).__name__})"
    return f"cannot be reached: {reason(error)}"


def _is(key: str, what: str) -> bool:
    return key.startswith(what) and key.removeprefix(what).isdigit()
