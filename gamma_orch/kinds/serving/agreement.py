"""What one spec of a Service alone cannot show: models that are there, ports that are free of each other.
Pure; called through `Kind.check`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, did_you_mean
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.serving.bounds import NAME, machine
from gamma_orch.kinds.serving.service_spec import RAY

TASK = "GAM801"  # versions of one model that are for different tasks
PORT = "GAM802"  # a port that another Service has
UNSERVED = "GAM803"  # a scope or a limit of a model that is not served
UNNAMEABLE = "GAM804"  # a name that its processes cannot have
ADAPTER = "GAM805"  # as an adapter, a Model that is a whole one
FITS = "GAM806"  # an adapter of another source than the model that is its base here
BASE = "GAM807"  # as the base of adapters, a Model whose weights are not those of its source
ALONE = "GAM808"  # an adapter served without its base
PROXY = "GAM809"  # several replicas, and nothing that shares requests out
SHARED_OUT = "GAM810"  # replicas or a proxy of its own on Ray Serve
ROUTE = "GAM811"  # a route that another Service has on the same Ray cluster
LISTENS = "GAM812"  # on one Ray cluster another address than another Service says
REACH = "GAM813"  # workers on another machine, and a Valkey that only this one reaches

# What of a Model's spec goes into the weights that an adapter of it is learned on.
LEARNED_ON = ("task", "source", "labels", "pooling", "normalize", "maxLength")

All = Mapping[Address, Resource]
Said = tuple[str, Path, str, str]


def services(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    ports: dict[tuple[str, int], Address] = {}
    clusters: dict[str, dict[str, Resource]] = {}
    for resource in resources:
        found = (*_faults(resource, everything, ports), *_on_ray(resource, everything, clusters))
        for code, path, message, hint in found:
            yield Diagnostic(code, message, path=path, address=resource.address, hint=hint)


def _faults(resource: Resource, everything: All, ports: dict[tuple[str, int], Address]) -> Iterator[Said]:
    spec, address = resource.spec, resource.address
    if not re.fullmatch(NAME, address.name):
        message = f"{address} names processes and folders, where no _ can stand"
        yield UNNAMEABLE, ("metadata", "name"), message, f"write {address.name.replace('_', '-')!r}"
    port, cluster = spec["listen"]["port"], _cluster(spec)
    # On a cluster Serve has the port, for all.
    other = ports.setdefault((machine(cluster), port), address)
    if other != address and not (cluster and cluster == _cluster(everything[other].spec)):
        message = f"{other} listens on {port} too"
        yield PORT, ("spec", "listen", "port"), message, "give one of them another port"
    if spec["replicas"] > 1 and spec["proxy"] is None and not cluster:
        message = f"{address} has {spec['replicas']} replicas, and nothing that shares requests out to them"
        hint = "write `proxy: {engine: nginx}`, or more `workers` in the place of replicas"
        yield PROXY, ("spec", "replicas"), message, hint
    for number, served in enumerate(spec["models"]):
        at: Path = ("spec", "models", number)
        yield from _tasks((*at, "versions"), served, everything)
        yield from _alone(at, served, everything)
        if served["adapters"] and (base := _model(everything, served["model"])):
            yield from _base(at, base)
            yield from _adapters(at, served["adapters"], base, everything)
    yield from _unserved(address, spec)


def _on_ray(resource: Resource, everything: All, clusters: dict[str, dict[str, Resource]]) -> Iterator[Said]:
    """`clusters`: the Services of each that came before, by their routes."""
    spec, address, cluster = resource.spec, resource.address, _cluster(resource.spec)
    if not cluster:
        return
    for field in ("replicas", "proxy"):
        if spec[field] not in (1, None):
            message = f"{address} says `{field}`, and Ray Serve shares requests out to its workers itself"
            yield (
                SHARED_OUT,
                ("spec", field),
                message,
                f"leave it out, and say `workers`; `{field}` is for supervisord",
            )
    route, there = (spec["ray"] or RAY)["route"], clusters.setdefault(cluster, {})
    if (other := there.setdefault(route, resource)) is not resource:
        message = f"{other.address} has the route {route} on the same cluster"
        yield ROUTE, ("spec", "ray", "route"), message, "give one of them another route"
    first = next(iter(there.values()))
    at, its = (tuple(one.spec["listen"][part] for part in ("host", "port")) for one in (resource, first))
    if at != its:
        message = f"{address} listens on {at[0]}:{at[1]}, and on the same cluster {first.address} on "
        message += f"{its[0]}:{its[1]}"
        yield (
            LISTENS,
            ("spec", "listen"),
            message,
            "Ray Serve listens once: write the same host and port in both",
        )
    cache = everything.get(Address("CachePolicy", str(spec["cache"])))
    asks = bool(spec["limits"]) or (cache is not None and cache.spec["shared"])
    if asks and spec["valkey"] is None and machine(cluster):
        message = (
            f"the workers of {address} share limits or a cache, and run where no Valkey of this machine is"
        )
        yield REACH, ("spec", "valkey"), message, "say the URL of one that the nodes of the cluster reach"


def _cluster(spec: Json) -> str:
    """The URL of the Ray cluster, as it is written; "" without one."""
    return str((spec["ray"] or RAY)["url"]) if spec["engine"] == "ray" else ""


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


def _model(everything: All, name: str | None) -> Resource | None:
    """None where there is no such Model: then the reference has been complained about."""
    return everything.get(Address("Model", str(name)))


def _is_adapter(model: Resource) -> bool:
    return bool(model.spec["finetune"] and model.spec["finetune"]["keep"] == "adapter")


def _alone(at: Path, served: Json, everything: All) -> Iterator[Said]:
    named = [((*at, "model"), served["model"])]
    named += [((*at, "versions", n, "model"), one["model"]) for n, one in enumerate(served["versions"])]
    for path, name in named:
        model = _model(everything, name)
        if model is not None and _is_adapter(model):
            message = f"{model.address} is an adapter, which answers only on its base"
            hint = f"serve its base as `model`, with `adapters: {{{name}: {name}}}`; or write `keep: merged`"
            yield ALONE, path, message, hint


def _base(at: Path, base: Resource) -> Iterator[Said]:
    if _is_adapter(base):
        return  # which has been said
    if base.spec["finetune"]:
        message = f"{base.address} is fine-tuned itself, and adapters fit only the weights of its source"
        yield BASE, (*at, "model"), message, "name a Model of the same source without `finetune`"
    elif base.spec["optimize"]["level"] != "none":
        message = f"{base.address} is optimized, and adapters fit only the weights of its source"
        hint = (
            f"write `optimize: {{level: none}}` in {base.address}, or name another Model of the same source"
        )
        yield BASE, (*at, "model"), message, hint


def _adapters(at: Path, adapters: Json, base: Resource, everything: All) -> Iterator[Said]:
    for name, named in adapters.items():
        model, path = _model(everything, named), (*at, "adapters", name)
        if model is None:
            continue
        if not _is_adapter(model):
            hint = f"write `finetune: {{keep: adapter}}` in {model.address}, or serve it as a `model`"
            yield ADAPTER, path, f"{model.address} is a whole model and no adapter", hint
        elif differ := [part for part in LEARNED_ON if model.spec[part] != base.spec[part]]:
            message = f"{model.address} is an adapter of other weights than {base.address}: they differ in "
            hint = f"give both the same {' and '.join(differ)}"
            yield FITS, path, message + ", ".join(differ), hint


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
