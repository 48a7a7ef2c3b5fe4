"""Specs of datasets and models as the language gives them, for tests of what is pure."""

from collections.abc import Mapping
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import replace_leaves
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.models import dataset_spec, model_spec
from gamma_orch.kinds.models.dataset_spec import DatasetSpec
from gamma_orch.kinds.models.model_spec import ModelSpec
from gamma_orch.spec.references import plain

REVIEWS: Mapping[str, Any] = {
    "source": {"package": "reviews==1.0", "file": "reviews.csv"},
    "columns": {"text": "text", "label": "label"},
    "labels": {"0": "negative", "1": "positive"},
}
SENTIMENT: Mapping[str, Any] = {
    "task": "text-classification",
    "source": {"package": "mini==0.1.0", "file": "model"},
    "labels": ["negative", "positive"],
    "finetune": {"dataset": "reviews"},
    "optimize": {"level": "advanced"},
}
DIGEST = "d" * 64


def model(**changed: Any) -> Json:
    """The spec of a model, validated, with its defaults."""
    return plain(ModelSpec.model_validate({**SENTIMENT, **changed}, by_alias=True))


def dataset(**changed: Any) -> Json:
    return plain(DatasetSpec.model_validate({**REVIEWS, **changed}, by_alias=True))


def fields(spec: Json, digest: str = DIGEST) -> Fields:
    """The fields of a model, its data resolved."""
    found: Fields = replace_leaves(
        model_spec.normalise(Address("Model", "sentiment"), spec, lambda _: {}), lambda _: digest
    )
    return found


def dataset_fields(spec: Json) -> Fields:
    database = {"server": "main", "name": "app"}
    return dataset_spec.normalise(Address("Dataset", "reviews"), spec, lambda _: database)


def everything(**specs: Json) -> dict[Address, Resource]:
    """Resources by `Kind__name`."""
    found = {}
    for name, spec in specs.items():
        at = Address(*name.split("__"))
        found[at] = Resource(at, spec)
    return found
