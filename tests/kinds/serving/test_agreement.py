"""What does not fit together between a Service and what else there is."""

from typing import Any

import pytest

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import written
from gamma_orch.kinds.serving.agreement import services
from tests.kinds.serving.specs import AUTH, everything, service

CLASSIFIES = {"task": "text-classification"}
MODELS: dict[str, Json] = {
    "Model__sentiment": CLASSIFIES,
    "Model__sentiment-next": CLASSIFIES,
    "Model__writer": {"task": "text-generation"},
}
TASKS = [(at.partition("__")[2], spec["task"]) for at, spec in MODELS.items()]
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
