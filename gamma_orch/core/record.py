"""The ledger's last word on one address: what Gamma applied, and what it got.

Written by `fold` from a Done event and by nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.fingerprint import Fingerprint
from gamma_orch.core.resource import Replace


@dataclass(frozen=True, slots=True)
class Record:
    fields: Mapping[str, Json]  # normalised, as applied, leaves encoded; its paths are the owned ones
    outputs: Mapping[str, Json]
    fingerprint: Fingerprint
    needs: tuple[Address, ...] = ()
    protect: bool = False
    retain: bool = False
    replace: Replace | None = None  # how it was built, so that its successor can be ordered

    def encoded(self) -> Json:
        return {
            "fields": self.fields,
            "outputs": self.outputs,
            "fingerprint": self.fingerprint.encoded(),
            "needs": [str(need) for need in self.needs],
            "protect": self.protect,
            "retain": self.retain,
            "replace": self.replace,
        }

    @classmethod
    def decoded(cls, body: Json) -> "Record":
        return cls(
            fields=body["fields"],
            outputs=body["outputs"],
            fingerprint=Fingerprint(*body["fingerprint"]),
            needs=tuple([Address(*need.split("/", 1)) for need in body["needs"]]),
            protect=body["protect"],
            retain=body["retain"],
            replace=Replace(body["replace"]) if body["replace"] else None,
        )
