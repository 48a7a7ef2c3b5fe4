"""Reads a plan saved by `gamma plan --out`. What was touched since is refused."""

import json
from pathlib import Path

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.provider import GammaError, Opcode
from gamma_orch.core.render import sealed


class Edited(GammaError):
    """A saved plan is not what was saved: refused, whatever it says."""


class WrongEnvironment(GammaError):
    """A saved plan is for another environment than the command."""


def read_plan(file: Path) -> Plan:
    """The plan's identity and steps; its changes are only for people and stay in the file."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if not sealed(document):
            raise Edited(
                f"{file} was changed after it was saved: its content does not give its id. Plan again."
            )
        return Plan(
            environment=document["environment"],
            parent=document["parent"],
            commit=document["commit"],
            desired=document["desired"],
            changes=(),
            steps=tuple(_step(step) for step in document["steps"]),
            id=document["id"],
        )
    except OSError as error:
        raise GammaError(f"The plan {file} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GammaError(f"{file} is no plan saved by `gamma plan --out`.") from None


def _step(body: Json) -> Step:
    moved = body["movedFrom"]
    return Step(
        index=body["index"],
        key=body["key"],
        opcode=Opcode(body["opcode"]),
        address=Address.parse(body["address"]),
        needs=tuple(body["needs"]),
        expects=body["expects"],
        planned=body["planned"],
        before=None,
        record=body["record"],
        moved_from=Address.parse(moved) if moved else None,
    )
