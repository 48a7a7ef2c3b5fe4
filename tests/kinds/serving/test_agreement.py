"""What does not fit together between a Service and what else there is."""

from typing import Any

import pytest

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import written
from gamma_orch.kinds.models.model_spec import ModelSpec
from gamma_orch.kinds.serving.agreement import services
from gamma_orch.spec.references import plain
from tests.kinds.serving.specs import AUTH, cache, everything, secret, service


def model(**changed: Any) -> Json:
    """The spec of a Model, validated, with its defaults."""
    given = {"task": "text-classification", "source": {"package": "mini==0.1.0"}, **changed}
    return plain(ModelSpec.model_validate(given, by_alias=True))


TUNED = {"dataset": "tales"}
GENERATES: Json = {"task": "text-generation", "optimize": {"level": "none"}}
ADAPTER: Json = {**GENERATES, "finetune": {**TUNED, "keep": "adapter"}}
MODELS: dict[str, Json] = {
    "Model__sentiment": model(),
    "Model__sentiment-next": model(),
    "Model__writer": model(task="text-generation"),
    "Model__novelist": model(**GENERATES),
    "Model__tuned": model(**GENERATES, finetune=TUNED),
    "Model__pirate": model(**ADAPTER),
    "Model__sailor": model(**ADAPTER),
    "Model__other": model(**{**ADAPTER, "source": {"package": "mini==0.2.0"}, "maxLength": 64}),
    "Model__in-bfloat16": model(**{**ADAPTER, "source": {"package": "mini==0.1.0", "dtype": "bfloat16"}}),
}
TASKS = [(at.partition("__")[2], spec["task"]) for at, spec in list(MODELS.items())[:3]]
DIFFER = "versions of one model differ in their task"
TWO = [{"model": "sentiment"}, {"model": "sentiment-next"}]


def said(**specs: Json) -> list[tuple[str, str, str, str, str]]:
    world = everything(**MODELS, **specs)
    mine = [resource for at, resource in world.items() if at.kind == "Service"]
    return [
        (str(one.address), one.code, written(one.path), one.message, one.hint)
        for one in services(mine, world)
    ]


def alone(**changed: Any) -> list[tuple[str, str, str, str]]:
    """Of one service: code, place, message and hint."""
    return [found[1:] for found in said(Service__api=service(**changed))]


def roles(*scopes: str) -> dict[str, Any]:
    return {**AUTH, "roles": {"caller": list(scopes)}}


def test_a_whole_service_has_nothing_to_say_about():
    assert alone() == []
    assert alone(models=[{"name": "mood", "versions": TWO}], auth=roles("predict:mood", "predict:mo*")) == []


def test_versions_of_different_tasks():
    served = [{"model": "sentiment"}, {"name": "mood", "versions": [*TWO, {"model": "writer"}]}]
    assert alone(models=served) == [
        (
            "GAM801",
            "spec.models[1].versions",
            f"{DIFFER}: {', '.join(f'{name} is for {task}' for name, task in TASKS)}",
            "serve them under names of their own",
        )
    ]


def test_a_version_that_is_not_there_is_somebody_elses_complaint():
    assert alone(models=[{"name": "mood", "versions": [*TWO, {"model": "gone"}]}]) == []


def adapters(base: str, **named: str) -> list[tuple[str, str, str, str]]:
    return alone(models=[{"model": "sentiment"}, {"model": base, "adapters": named}])


def test_adapters_of_one_base():
    assert adapters("novelist", pirate="pirate", sailor="sailor") == []
    assert adapters("gone", pirate="pirate") == []  # somebody else's complaint
    assert adapters("novelist", pirate="gone") == []


def test_what_is_no_adapter():
    assert adapters("novelist", pirate="pirate", whole="tuned") == [
        (
            "GAM805",
            "spec.models[1].adapters.whole",
            "Model/tuned is a whole model and no adapter",
            "write `finetune: {keep: adapter}` in Model/tuned, or serve it as a `model`",
        )
    ]


@pytest.mark.parametrize(
    ("base", "named", "differ"),
    [
        ("novelist", "other", ["source", "maxLength"]),
        ("novelist", "in-bfloat16", ["source"]),
    ],
)
def test_an_adapter_of_other_weights(base: str, named: str, differ: list[str]):
    assert adapters(base, pirate=named) == [
        (
            "GAM806",
            "spec.models[1].adapters.pirate",
            f"Model/{named} is an adapter of other weights than Model/{base}: they differ in "
            + ", ".join(differ),
            f"give both the same {' and '.join(differ)}",
        )
    ]


def test_a_base_whose_weights_are_not_its_sources():
    assert adapters("writer", pirate="pirate") == [
        (
            "GAM807",
            "spec.models[1].model",
            "Model/writer is optimized, and adapters fit only the weights of its source",
            "write `optimize: {level: none}` in Model/writer, or name another Model of the same source",
        )
    ]
    [(code, _, message, _)] = adapters("tuned", pirate="pirate")
    assert code == "GAM807"
    assert message == "Model/tuned is fine-tuned itself, and adapters fit only the weights of its source"


def test_an_adapter_without_its_base():
    on_it = {"name": "m", "versions": [{"model": "novelist"}, {"model": "sailor", "weight": 2}]}
    found = alone(models=[{"model": "pirate"}, on_it])
    assert [one[:3] for one in found] == [
        ("GAM808", path, f"Model/{name} is an adapter, which answers only on its base")
        for path, name in (("spec.models[0].model", "pirate"), ("spec.models[1].versions[1].model", "sailor"))
    ]
    assert found[0][3] == (
        "serve its base as `model`, with `adapters: {pirate: pirate}`; or write `keep: merged`"
    )
    [(code, *_)] = adapters("pirate", sailor="sailor")  # said once, and not of the sailor too
    assert code == "GAM808"


def test_two_services_on_one_port():
    found = said(
        Service__a=service(), Service__b=service(listen={"port": 8001}), Service__c=service(listen={})
    )
    assert found == [
        (
            "Service/c",
            "GAM802",
            "spec.listen.port",
            "Service/a listens on 8000 too",
            "give one of them another port",
        )
    ]


def test_replicas_that_nothing_stands_before():
    [(code, path, message, hint)] = alone(replicas=3)
    assert (code, path) == ("GAM809", "spec.replicas")
    assert message == "Service/api has 3 replicas, and nothing that shares requests out to them"
    assert hint.startswith("write `proxy: {engine: nginx}`")
    assert alone(replicas=3, proxy={}) == alone(replicas=1) == alone(proxy={}) == []


def on_ray(**changed: Any) -> Json:
    """The spec of a service on the Ray cluster of this machine."""
    ray = {name: changed.pop(name) for name in ("url", "route") if name in changed}
    return service(engine="ray", ray=ray, **changed)


def test_on_ray_serve_shares_requests_out_itself():
    [replicas, proxy] = said(Service__api=on_ray(replicas=3, proxy={}))
    assert [one[1:3] for one in (replicas, proxy)] == [("GAM810", "spec.replicas"), ("GAM810", "spec.proxy")]
    assert replicas[4] == "leave it out, and say `workers`; `replicas` is for supervisord"
    assert said(Service__api=on_ray(workers=3)) == []


def test_services_of_one_cluster_share_its_address_and_differ_in_their_routes():
    assert said(Service__a=on_ray(), Service__b=on_ray(route="/b")) == []
    [same] = said(Service__a=on_ray(), Service__b=on_ray())
    assert same[:4] == (
        "Service/b",
        "GAM811",
        "spec.ray.route",
        "Service/a has the route / on the same cluster",
    )
    [port] = said(Service__a=on_ray(), Service__b=on_ray(route="/b", listen={"port": 8001}))
    assert port[:3] == ("Service/b", "GAM812", "spec.listen")
    assert "127.0.0.1:8001, and on the same cluster Service/a on 127.0.0.1:8000" in port[3]
    # On clusters of their own they have nothing to do with each other.
    assert said(Service__a=on_ray(), Service__b=on_ray(url="http://ray.internal:8265")) == []


def test_a_port_is_one_machines():
    [here] = said(Service__a=service(), Service__b=on_ray())
    assert here[:3] == ("Service/b", "GAM802", "spec.listen.port")
    [two] = said(Service__a=on_ray(), Service__b=on_ray(url="http://localhost:8266"))
    assert two[:3] == ("Service/b", "GAM802", "spec.listen.port")
    assert said(Service__a=service(), Service__b=on_ray(url=secret("ray"))) == []


def test_workers_elsewhere_reach_no_valkey_of_this_machine():
    away = {"url": "http://ray.internal:8265", "limits": {"each": {"by": "principal", "rate": "1/s"}}}
    [found] = said(Service__api=on_ray(**away))
    assert found[1:3] == ("GAM813", "spec.valkey")
    assert said(Service__api=on_ray(**away, valkey="redis://valkey.internal:6379")) == []
    assert said(Service__api=on_ray(limits=away["limits"])) == []
    policies = {"CachePolicy__mine": cache(shared=False), "CachePolicy__ours": cache()}
    assert said(Service__api=on_ray(url=away["url"], cache="mine"), **policies) == []
    [found] = said(Service__api=on_ray(url=away["url"], cache="ours"), **policies)
    assert found[1] == "GAM813"


def test_a_scope_of_a_model_that_is_not_served():
    assert alone(auth=roles("models", "predict:sentimnet")) == [
        (
            "GAM803",
            "spec.auth.roles.caller[1]",
            "Service/api serves no model 'sentimnet'",
            "did you mean 'sentiment'?",
        )
    ]


def test_it_is_the_name_in_the_api_that_counts():
    [(code, _, message, hint)] = alone(
        models=[{"name": "mood", "versions": TWO}], auth=roles("predict:sentiment")
    )
    assert (code, message, hint) == ("GAM803", "Service/api serves no model 'sentiment'", "one of: mood")


def test_a_beginning_that_no_model_has():
    [(code, path, message, _)] = alone(auth=roles("predict:sent*", "predict:team-*"))
    assert (code, path) == ("GAM803", "spec.auth.roles.caller[1]")
    assert message == "Service/api serves no model whose name begins with 'team-'"


def test_a_limit_of_a_model_that_is_not_served_would_hold_for_nothing():
    limits = {"each": {"by": "tenant", "rate": "1/s", "routes": ["predict:sentiment", "predict:sentimnet"]}}
    [(code, path, _, hint)] = alone(limits=limits)
    assert (code, path, hint) == ("GAM803", "spec.limits.each.routes[1]", "did you mean 'sentiment'?")


@pytest.mark.parametrize("name", ["a_b", "a._b"])
def test_a_name_that_no_process_can_have(name: str):
    [(_, code, path, _, hint)] = said(**{f"Service__{name}": service()})
    assert (code, path) == ("GAM804", "metadata.name")
    assert hint == f"write {name.replace('_', '-')!r}"
