"""Addresses as arguments."""

from collections.abc import Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.provider import GammaError


def address(text: str) -> Address:
    """`Kind/name`. Raises GammaError with the form to use."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise GammaError(f"{error}; write, for example, Index/accounts-email.") from None


def addresses(texts: Sequence[str]) -> list[Address]:
    return [address(text) for text in texts]
