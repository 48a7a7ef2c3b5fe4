"""Gamma: a declarative, GitOps orchestrator for teams that run their own AI application."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gamma_orch.orchestration.component import GammaProject

__version__ = "0.1.0"
__all__ = ["GammaProject", "__version__"]


def __getattr__(name: str) -> Any:
    """The Dagster component `gamma_orch.GammaProject`, imported with Dagster when it is asked for."""
    if name == "GammaProject":
        from gamma_orch.orchestration.component import GammaProject

        return GammaProject
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
