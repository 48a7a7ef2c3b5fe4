"""Units by which systemd runs the workers of a service, on a host that has no supervisord of Gamma's. Pure.

One socket that all workers share, as under supervisord; a template of their service, and a target for all.
The worker may do what it must: read the models, write into the service's folder, open connections.
"""

import ipaddress
import re
from dataclasses import dataclass

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.serving.programs import STOP
from gamma_orch.kinds.serving.templating import filled
from gamma_orch.targets.program import BACKLOG

# Of a path that stands in a unit as it is: none of it means anything to systemd.
PATH = re.compile(r"/[A-Za-z0-9._/@:+,=-]*")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
MEMORY = re.compile(r"[1-9][0-9]{0,11}[KMGT]?")


@dataclass(frozen=True, slots=True)
class Units:
    name: str
    home: str  # the service's folder
    python: str
    user: str
    memory: str = ""  # of each worker, as systemd writes it: 2G


def rendered(units: Units, spec: Json) -> dict[str, str]:
    """The text of each file by its name; `spec` is the Service's. Raises Permanent with every fault."""
    listen, faults = spec["listen"], list(_faults(units, spec))
    if faults:
        raise Permanent(f"Service/{units.name} cannot be run by systemd: {'; '.join(faults)}.")
    unit = f"gamma-{units.name}"
    values = {
        "name": units.name,
        "unit": unit,
        "home": units.home,
        "python": units.python,
        "user": units.user,
        "memory": units.memory,
        "stop": STOP,
        "workers": spec["workers"],
        "host": listen["host"],
        "port": listen["port"],
        "backlog": BACKLOG,
    }
    return {
        f"{unit}.socket": filled("worker.socket.j2", values),
        f"{unit}.target": filled("workers.target.j2", values),
        f"{unit}@.service": filled("worker.service.j2", values),
    }


def _faults(units: Units, spec: Json) -> "list[str]":
    found = []
    try:
        ipaddress.IPv4Address(spec["listen"]["host"])
    except ValueError:
        found.append(f"it listens on addresses, and {spec['listen']['host']!r} is a name")
    if spec["engine"] == "ray":
        found.append("Ray Serve runs it; write units for a Service without `engine: ray`")
    if spec["proxy"]:
        found.append(
            "the nginx of its `proxy` runs under supervisord; write units for a Service without one, and "
            "name its host and port in `others` of the one with the proxy"
        )
    for what, text, form in (
        ("the folder", units.home, PATH),
        ("the path of Python", units.python, PATH),
        ("the user", units.user, USER),
    ):
        if not form.fullmatch(text):
            found.append(f"{what} {text!r} has signs that a unit does not take as they are")
    if units.memory and not MEMORY.fullmatch(units.memory):
        found.append(f"{units.memory!r} is no size; write 2G, or 500M")
    return found
