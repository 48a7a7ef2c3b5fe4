"""What is told to Ray Serve, and what is made of what it says. `ray/*.json` is what Ray 2.60 has said, but
for paths, addresses and ports; `ray/told.json` what its replicas have."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.serving import cluster, programs
from gamma_orch.targets.ray_serve import merged, without
from tests.kinds.serving.specs import fields, service

RAY = Path(__file__).with_name("ray")
NAME = "gamma-dev-api"
TOLD: Mapping[str, Any] = json.loads((RAY / "told.json").read_text())
ON_RAY = {"engine": "ray", "ray": {"cpus": 0.5}, "workers": 2, "drain": "3s"}
DIGEST, CODE = (next(iter(TOLD.values()))[name] for name in ("bundle", "code"))
WANTED = cluster.config(NAME, fields(service(**ON_RAY)), "/srv/shop/.gamma/dev/service-api", CODE, DIGEST)


def said(name: str) -> Any:
    return json.loads((RAY / f"{name}.json").read_text())


def of(details: Any) -> Any:
    return details["applications"][NAME]


def faults(details: Any, told: Mapping[str, Any] = TOLD, wanted: Any = WANTED) -> list[str]:
    return list(cluster.faults(details, wanted, told))


def test_what_runs_is_what_was_told_and_nothing_is_wrong_with_it():
    assert of(said("running"))["deployed_app_config"] == WANTED
    assert faults(said("running")) == []


def test_where_it_answers():
    listen = {"host": "10.0.0.1", "port": 80}
    assert programs.url(fields(service(listen=listen))) == "http://10.0.0.1:80"
    assert programs.url(fields(service(**ON_RAY))) == "http://127.0.0.1:8000"
    ray = {"engine": "ray", "ray": {"route": "/a/b"}}
    assert programs.url(fields(service(**ray))) == "http://127.0.0.1:8000/a/b"


def test_another_bundle_is_another_user_config_and_nothing_else():
    other = cluster.config(NAME, fields(service(**ON_RAY)), WANTED["args"]["home"], CODE, "f" * 64)
    other["deployments"][0]["user_config"] = {"bundle": DIGEST}
    assert other == WANTED


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-serve", [f"Ray Serve has no application {NAME}"]),
        ("absent", [f"Ray Serve has no application {NAME}"]),
        ("deleting", [f"the application {NAME} was deleted on Ray Serve"]),
        ("not-starting", [f"the application {NAME} on Ray Serve is not this project's"]),
        ("deploy-failed", [
            f"Ray Serve has another configuration of {NAME}",
            f"the application {NAME} is DEPLOY_FAILED: ModuleNotFoundError: No module named 'no_such'",
        ]),
        ("no-room", [
            f"Ray Serve has another configuration of {NAME}",
            f"the application {NAME} is DEPLOYING",
            "total resources available",
            "0 of 2 workers run, and 2 are there",
        ]),
    ],
)  # fmt: skip
def test_what_is_wrong(name: str, words: list[str]):
    found = faults(said(name))
    assert len(found) == len(words)
    assert all(word in fault for word, fault in zip(words, found, strict=True))


def test_a_replica_that_is_another_one_than_serve_believes():
    one, two = sorted(TOLD)
    digest = {**TOLD, one: {**TOLD[one], "bundle": "f" * 64}}
    assert faults(said("running"), digest) == [f"replica {one} runs the bundle {'f' * 12}, not {DIGEST[:12]}"]
    code = {**TOLD, two: {**TOLD[two], "code": "0.0.1+abc"}}
    [fault] = faults(said("running"), code)
    assert fault.startswith(f"replica {two} runs gamma-orch 0.0.1+abc, and here it is {CODE}: install")
    [fault] = faults(said("running"), {one: TOLD[one]})
    assert fault.startswith(f"replica {two} is gone, or cannot say")


def test_a_replica_too_many_or_one_that_stops_is_seen():
    details = said("running")
    [worker] = of(details)["deployments"].values()
    worker["replicas"].append({**worker["replicas"][0], "replica_id": "c", "state": "STOPPING"})
    assert faults(details) == ["2 of 2 workers run, and 3 are there"]
    worker["replicas"][:] = worker["replicas"][:1]
    assert faults(details) == ["1 of 2 workers run, and 1 are there"]


def test_what_will_never_come_is_told_from_what_may():
    assert cluster.refusal(said("running"), WANTED, TOLD, ()) == ""
    assert cluster.refusal(said("no-room"), WANTED, {}, ()) == ""
    why = cluster.refusal(said("deploy-failed"), WANTED, {}, ())
    assert why == "Ray Serve cannot run it: ModuleNotFoundError: No module named 'no_such'"
    why = cluster.refusal(said("not-starting"), WANTED, {}, ())
    assert "/nowhere/bundles cannot be read on this node of the cluster" in why
    # What Serve has said before says nothing of what has just been told to it.
    details = said("not-starting")
    stale = tuple(one["message"] for one in of(details)["deployments"].values())
    assert cluster.refusal(details, WANTED, {}, stale) == ""


def test_a_refusal_is_of_the_bundle_that_is_wanted_by_a_replica_that_is_there():
    one = min(TOLD)
    refused = {one: {**TOLD[one], "bundle": "f" * 64, "wanted": DIGEST, "fault": "No such file."}}
    why = cluster.refusal(said("running"), WANTED, refused, ())
    assert why == f"Replica {one} refuses the bundle: No such file."
    before = {one: {**refused[one], "wanted": "f" * 64}}
    assert cluster.refusal(said("running"), WANTED, before, ()) == ""
    assert cluster.refusal(said("running"), WANTED, {"gone": refused[one]}, ()) == ""


# --- beside the applications of others ------------------------------------------------------------


def test_those_of_others_go_back_as_they_were():
    details = said("running")
    foreign = details["applications"]["foreign"]["deployed_app_config"]
    assert foreign["runtime_env"] == {"env_vars": {"NAME": "theirs"}}
    wanted = {**WANTED, "route_prefix": "/new"}
    # `by-hand` did not come by the REST API, so Serve leaves it alone, and there is nothing to send.
    assert merged(details, wanted, "127.0.0.1", 8000) == {"applications": [foreign, wanted]}
    assert without(details, NAME) == {"applications": [foreign]}
    details["target_capacity"] = 50.0
    assert without(details, NAME) == {"applications": [foreign], "target_capacity": 50.0}


def test_serve_is_started_where_the_service_listens():
    started = merged(said("no-serve"), WANTED, "127.0.0.1", 8000)
    assert started == {"applications": [WANTED], "http_options": {"host": "127.0.0.1", "port": 8000}}


def test_serve_that_listens_elsewhere_is_said():
    for host, port in (("127.0.0.1", 8001), ("10.0.0.1", 8000)):
        with pytest.raises(Permanent, match=r"listens on 127\.0\.0\.1:8000, and the Service on "):
            merged(said("running"), WANTED, host, port)


def test_what_ray_hides_or_does_not_say_is_never_sent():
    hidden = said("running")
    foreign = hidden["applications"]["foreign"]
    foreign["deployed_app_config"]["runtime_env"]["env_vars"]["NAME"] = "<redacted>"
    silent = said("running")
    silent["applications"]["foreign"]["deployed_app_config"] = None
    for details in (hidden, silent):
        with pytest.raises(Permanent, match="Ray does not say how its application foreign was deployed"):
            merged(details, WANTED, "127.0.0.1", 8000)
        with pytest.raises(Permanent, match="Ray does not say"):
            without(details, NAME)


def test_an_application_of_that_name_of_another_project_is_not_taken():
    with pytest.raises(Permanent, match="has an application gamma-dev-api already"):
        merged(said("not-starting"), WANTED, "127.0.0.1", 8000)
    details = said("running")
    details["applications"][NAME] = {**deepcopy(details["applications"]["by-hand"]), "name": NAME}
    with pytest.raises(Permanent, match="has an application gamma-dev-api already"):
        merged(details, WANTED, "127.0.0.1", 8000)
    assert WANTED in merged(said("deleting"), WANTED, "127.0.0.1", 8000)["applications"]
