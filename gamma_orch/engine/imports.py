"""Writes the YAML of an object that exists already, so that it can be taken into the specs.

The kind's provider describes what it finds; the next plan then says `adopt`, without a difference.
"""

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import GammaError, Permanent
from gamma_orch.engine.converge import Site

FORMS = "DATABASE, DATABASE/NAME for what is in it, or SERVER/DATABASE/NAME on another target than main"


async def describe(site: Site, address: Address, what: str) -> Json:
    """The document of one existing object. Raises GammaError where there is none, or no way to tell."""
    try:
        provider = site.world.provider(address.kind)
    except LookupError:
        raise GammaError(f"There is no kind {address.kind}; `gamma explain` lists them.") from None
    describing = getattr(provider, "describe", None)
    if describing is None:
        raise GammaError(f"The kind {address.kind} cannot describe what exists; write its spec by hand.")
    server, database, name = _parts(what)
    try:
        spec = await describing(server, database, name)
    except Permanent as error:
        raise GammaError(str(error)) from None
    if spec is None:
        raise GammaError(f"There is no {address.kind} {name!r} in database {database!r} on {server!r}.")
    return {
        "apiVersion": "gamma/v1",
        "kind": address.kind,
        "metadata": {"name": address.name},
        "spec": spec,
    }


def _parts(what: str) -> tuple[str, str, str]:
    """Server, database and name, from the forms that the help shows."""
    match what.split("/"):
        case [database] if database:
            return "main", database, database
        case [database, name] if database and name:
            return "main", database, name
        case [server, database, name] if server and database and name:
            return server, database, name
        case _:
            raise GammaError(f"{what!r} names no object. Write {FORMS}.")
