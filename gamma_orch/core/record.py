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
        """What is the default is left out: 10,000 records are read for every plan."""
        body: dict[str, Json] = {"fields": self.fields, "fingerprint": self.fingerprint.encoded()}
        if self.outputs:
            body["outputs"] = self.outputs
        if self.needs:
            body["needs"] = [str(need) for need in self.needs]
        if self.protect:
            body["protect"] = True
        if self.retain:
            body["retain"] = True
        if self.replace:
            body["replace"] = self.replace.value
        return body

    @classmethod
    def decoded(cls, body: Json) -> "Record":
        needs = body.get("needs", ())
        replace = body.get("replace")
        return cls(
            fields=body["fields"],
            outputs=body.get("outputs", {}),
            fingerprint=Fingerprint(*body["fingerprint"]),
            needs=tuple([Address(*need.split("/", 1)) for need in needs]),
            protect=body.get("protect", False),
            retain=body.get("retain", False),
            replace=Replace(replace) if replace else None,
        )
