"""Addresses as Dagster spells them: asset keys [environment, kind, name], and names of ops."""

import re

import dagster as dg

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import digest

IN_SYNC = "in_sync"
HEALTHY = "healthy"
ENVIRONMENT_TAG = "gamma/environment"
CAUSE_TAG = "gamma/cause"
COMMIT_TAG = "gamma/commit"


def asset_key(environment: str, address: Address) -> dg.AssetKey:
    return dg.AssetKey([environment, address.kind, address.name])


def address_of(key: dg.AssetKey) -> Address:
    _, kind, name = key.path
    return Address(kind, name)


def op_name(address: Address) -> str:
    """Letters, digits and underscores; two addresses never share one."""
    name = f"{address.kind}__{address.name.replace('-', '_')}"
    if "_" in address.name or "." in address.name:
        name = re.sub(r"\W", "_", name) + "_" + digest(str(address))[:6]
    return name


def pool_name(environment: str, target: str) -> str:
    """Of a target such as `postgres/main`."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{environment}_{target}")
