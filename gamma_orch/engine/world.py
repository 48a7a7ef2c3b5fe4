"""The world as the engine sees it: one provider a kind, asked in bulk and all at once.

`observe` never raises: what a provider cannot answer, in time or at all, is `Unreadable`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gamma_orch.core.address import Address
from gamma_orch.core.kind import Traits
from gamma_orch.core.observation import Observation, Unreadable
from gamma_orch.core.provider import Asked, GammaError, Provider
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.registry import KindUnavailable

if TYPE_CHECKING:
    from gamma_orch.targets import Targets

# A read of one kind takes milliseconds; a target that has not answered by then is down, and waiting
# longer would hide all the others behind it.
OBSERVE_SECONDS = 30.0


def defect(error: Exception) -> str:
    """What a provider raised that it should not have, and where: never its text, which may hold a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    return f"{type(error).__name__} at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"


class World:
    def __init__(self, kinds: Callable[[str], Kind | None], targets: "Targets") -> None:
        self._kinds = kinds
        self.targets = targets
        self._providers: dict[str, Provider] = {}

    def provider(self, kind: str) -> Provider:
        """Opened at first use. Raises LookupError where no plugin provides the kind."""
        if kind not in self._providers:
            found = self._kinds(kind)
            if found is None:
                raise LookupError(kind)
            self._providers[kind] = found.provider(self.targets)
        return self._providers[kind]

    def traits(self, kinds: Iterable[str]) -> dict[str, Traits]:
        """Of the kinds there are: one that is only recorded may be gone, or not to be imported."""
        found: dict[str, Traits] = {}
        for name in kinds:
            with contextlib.suppress(KindUnavailable):
                if (kind := self._kinds(name)) is not None:
                    found[name] = kind.traits
        return found

    async def observe(self, asked: Sequence[Asked]) -> dict[Address, Observation]:
        """An answer for each address asked, and perhaps extras. All kinds at once."""
        by_kind: dict[str, list[Asked]] = {}
        for one in asked:
            by_kind.setdefault(one.address.kind, []).append(one)
        answers = await asyncio.gather(*(self._observe(kind, some) for kind, some in by_kind.items()))
        found: dict[Address, Observation] = {}
        for answer in answers:
            found.update(answer)
        return found

    async def _observe(self, kind: str, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        try:
            if self._kinds(kind) is None:
                return _unreadable(asked, f"no installed plugin provides the kind {kind}")
            async with asyncio.timeout(OBSERVE_SECONDS):
                answer = await self.provider(kind).observe(asked)
            missing = [one for one in asked if one.address not in answer]
        except TimeoutError:
            return _unreadable(asked, f"no answer within {OBSERVE_SECONDS:.0f} s")
        except GammaError as error:
            return _unreadable(asked, str(error))
        except Exception as error:  # noqa: BLE001 - a defect in one provider must not hide the other kinds
            # Only its type: the text may hold a URL with its password.
            return _unreadable(asked, f"the provider of {kind} failed: {defect(error)}")
        return (
            {**_unreadable(missing, f"the provider of {kind} gave no answer"), **answer}
            if missing
            else answer
        )

    async def aclose(self) -> None:
        await self.targets.aclose()


def _unreadable(asked: Sequence[Asked], error: str) -> dict[Address, Observation]:
    return {one.address: Unreadable(error) for one in asked}
