"""From the fields of a Service to the bundle that its workers run. Pure but for the secrets that it is given
(`credentials`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gamma_orch.app import bundle as contract
from gamma_orch.app.address import UNIX
from gamma_orch.app.valkey import Valkey
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.serving.bounds import rate_of
from gamma_orch.kinds.serving.credentials import Hashed, Secrets, allowed
from gamma_orch.kinds.serving.programs import is_on_ray
from gamma_orch.spec.quantities import seconds_of, share_of, size_of


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's files on this machine."""

    folder: str
    files: Mapping[str, str]  # sha256 by name
    task: str


@dataclass(frozen=True, slots=True)
class Compiled:
    bundle: contract.Bundle
    secrets: contract.Secrets


def compiled(
    name: str,
    fields: Fields,  # with every secret revealed
    artifact: Callable[[str], Artifact],  # by key
    hashed: Hashed,
    valkey: str,
    code: str,
) -> Compiled:
    """Raises Permanent, with every fault of the secrets."""
    secrets, faults = Secrets(), list[str]()
    auth = allowed(name, fields, secrets, hashed, faults)
    _keep_urls(fields, valkey, secrets, faults)
    if faults:
        said = " ".join(faults)
        raise Permanent(f"Service/{name}: {said[0].lower()}{said[1:]} Give other secrets, and apply again.")
    listen = fields["listen"]
    made = contract.Bundle(
        service=name,
        models={served: _model(said, artifact) for served, said in fields["models"].items()},
        cache=_cache(fields.get("cache")),
        limits=tuple(_limit(which, said) for which, said in sorted(fields.get("limits", {}).items())),
        auth=auth,
        log=_log(fields.get("log")),
        traces=_traces(fields.get("traces")),
        process=contract.Process(
            host=listen["host"],
            port=listen["port"],
            workers=fields["workers"],
            code=code,
            body=size_of(fields["body"]),
            drain=seconds_of(fields["drain"]),
            # Behind a proxy workers are reached by their own socket alone, which nobody else can open, and on
            # Ray Serve by its proxy alone.
            trusted=(*((UNIX,) if fields.get("proxy") or is_on_ray(fields) else ()), *listen["trusted"]),
            origins=tuple(listen["origins"]),
        ),
        secrets=secrets.digests(),
    )
    return Compiled(made, contract.Secrets(values=secrets.values))


def _keep_urls(fields: Fields, valkey: str, secrets: Secrets, faults: list[str]) -> None:
    if log := fields.get("log"):
        secrets.keep("database", log["database"])
        if not log["database"].startswith(("postgresql://", "postgres://")):
            faults.append("The URL of the log's database does not begin with postgresql://.")
        if log["predictions"] == "texts":
            secrets.keep("columns", fields["columns"])
    if valkey:
        secrets.keep("cache", valkey)
        try:
            Valkey(valkey)
        except ValueError as error:
            faults.append(str(error))


def _model(said: Json, artifact: Callable[[str], Artifact]) -> contract.Model:
    found = [(one, artifact(one["key"])) for _, one in sorted(said["versions"].items())]
    if len(tasks := {of.task for _, of in found}) > 1:
        raise Permanent(f"The versions of one model have one task, and here are {', '.join(sorted(tasks))}.")
    return contract.Model(
        task=found[0][1].task,
        versions=tuple(
            contract.Version(
                digest=one["digest"],
                folder=of.folder,
                files=dict(of.files),
                weight=one["weight"],
                shadow=one["shadow"],
                threads=said["threads"],
            )
            for one, of in found
        ),
        adapters={
            name: contract.Adapter(digest=one["digest"], folder=of.folder, files=dict(of.files))
            for name, one in sorted(said.get("adapters", {}).items())
            for of in (artifact(one["key"]),)
        },
        batch=said["batch"],
        queue=said["queue"],
        deadline=seconds_of(said["deadline"]),
        texts=said["texts"],
        characters=said["characters"],
        new_tokens=said["newTokens"],
        cached=said["cached"],
    )


def _cache(said: Json | None) -> contract.Cache:
    if said is None:
        return contract.Cache(entries=0, shared=False)
    return contract.Cache(
        entries=said["entries"],
        megabytes=size_of(said["size"]) // 1_000_000,
        ttl=seconds_of(said["ttl"]),
        stale=seconds_of(said["stale"]),
        negative=seconds_of(said["negative"]),
        jitter=share_of(said["jitter"]),
        tenants=said["tenants"],
        shared=said["shared"],
    )


def _log(said: Json | None) -> contract.Log:
    if said is None:
        return contract.Log()
    return contract.Log(requests=said["requests"], predictions=said["predictions"], tables=said["schema"])


def _traces(said: Json | None) -> contract.Traces:
    if said is None:
        return contract.Traces()
    return contract.Traces(endpoint=said["endpoint"], sample=share_of(said["sample"]))


def _limit(name: str, said: Json) -> contract.Limit:
    rate, per = rate_of(said["rate"])
    return contract.Limit(
        name=name,
        by=said["by"],
        rate=rate,
        per=per,
        burst=said["burst"],
        routes=tuple(said["routes"]),
        counts=said["counts"],
        without=said["without"],
    )
