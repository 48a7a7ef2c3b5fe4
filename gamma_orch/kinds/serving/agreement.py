"""What one spec of a Service alone cannot show: models that are there, ports that are free of each other.
Pure; called through `Kind.check`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, did_you_mean
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.serving.bounds import NAME

TASK = "GAM801"  # versions of one model that are for different tasks
PORT = "GAM802"  # a port that another Service has
UNSERVED = "GAM803"  # a scope or a limit of a model that is not served
UNNAMEABLE = "GAM804"  # a name that its processes cannot have

All = Mapping[Address, Resource]
Said = tuple[str, Path, str, str]


def services(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    ports: dict[int, Address] = {}
    for resource in resources:
        for code, path, message, hint in _faults(resource, everything, ports):
            yield Diagnostic(code, message, path=path, address=resource.address, hint=hint)


def _faults(resource: Resource, everything: All, ports: dict[int, Address]) -> Iterator[Said]:
    spec, address = resource.spec, resource.address
    if not re.fullmatch(NAME, address.name):
        message = f"{address} names processes and folders, where no _ can stand"
        yield UNNAMEABLE, ("metadata", "name"), message, f"write {address.name.replace('_', '-')!r}"
    port = spec["listen"]["port"]
    if (other := ports.setdefault(port, address)) != address:
        message = f"{other} listens on {port} too"
        yield PORT, ("spec", "listen", "port"), message, "give one of them another port"
    for number, served in enumerate(spec["models"]):
        yield from _tasks(("spec", "models", number, "versions"), served, everything)
    yield from _unserved(address, spec)


def _tasks(path: Path, served: Json, everything: All) -> Iterator[Said]:
    tasks = {}
    for version in served["versions"]:
        model = everything.get(Address("Model", version["model"]))
        if model is not None:  # else the reference has been complained about
            tasks[version["model"]] = model.spec["task"]
    if len(set(tasks.values())) > 1:
        said = ", ".join(f"{name} is for {task}" for name, task in tasks.items())
        message = f"versions of one model differ in their task: {said}"
        yield TASK, path, message, "serve them under names of their own"


def _unserved(address: Address, spec: Json) -> Iterator[Said]:
    """A scope that gives nothing, and a limit that holds for nothing, were meant for something."""
    names = [served["name"] or served["model"] for served in spec["models"]]
    for path, one in _of_models(spec):
        _, _, model = one.partition(":")
        if model.endswith("*"):
            if not any(name.startswith(model[:-1]) for name in names):
                yield UNSERVED, path, f"{address} serves no model whose name begins with {model[:-1]!r}", ""
        elif model and model not in names:
            yield UNSERVED, path, f"{address} serves no model {model!r}", did_you_mean(model, names)


def _of_models(spec: Json) -> Iterator[tuple[Path, str]]:
    for role, scopes in spec["auth"]["roles"].items():
        for number, scope in enumerate(scopes):
            yield ("spec", "auth", "roles", role, number), scope
    for name, limit in spec["limits"].items():
        for number, route in enumerate(limit["routes"]):
            yield ("spec", "limits", name, "routes", number), route
