"""Which kinds there are, and the one that a document names. Kinds are imported when first asked for.

`registry()` is the installed one: the entry points `gamma_orch.kinds` of all distributions, and
the lists `KINDS` of the modules that GAMMA_PLUGINS names. Tests build `Registry({...})` themselves.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from gamma_orch.core.provider import GammaError

if TYPE_CHECKING:
    from gamma_orch.spec.kind import Kind

GROUP = "gamma_orch.kinds"
PLUGINS = "GAMMA_PLUGINS"


class KindUnavailable(GammaError):
    """A kind is known by name, and importing it failed."""


class Registry:
    """Kinds by name. Each loader is called once at most."""

    def __init__(self, kinds: "Mapping[str, Kind | Callable[[], Kind]]") -> None:
        self._kinds = dict(kinds)

    def names(self) -> list[str]:
        return sorted(self._kinds)

    def get(self, name: str) -> "Kind | None":
        """The kind of that name; None where there is none. Raises KindUnavailable."""
        from gamma_orch.spec.kind import Kind

        found = self._kinds.get(name)
        if found is None or isinstance(found, Kind):
            return found
        try:
            kind = found()
        except Exception as error:  # a plugin's import may fail in any way
            reason = f"{type(error).__name__}: {error}"
            raise KindUnavailable(f"The kind {name} is installed but cannot be imported: {reason}") from error
        if not isinstance(kind, Kind):
            raise KindUnavailable(f"The entry point of kind {name} is not a gamma_orch.spec.kind.Kind.")
        self._kinds[name] = kind
        return kind

    def all(self) -> "list[Kind]":
        """Every kind, imported. For the schema and the documentation."""
        return [kind for name in self.names() if (kind := self.get(name)) is not None]


def registry(plugins: str | None = None) -> Registry:
    """The installed kinds and those of the plugin modules (by default those of GAMMA_PLUGINS).

    Raises KindUnavailable when a plugin module cannot be imported.
    """
    from importlib.metadata import entry_points

    kinds: dict[str, Kind | Callable[[], Kind]] = {}
    for point in entry_points(group=GROUP):
        kinds.setdefault(point.name, point.load)
    names = os.environ.get(PLUGINS, "") if plugins is None else plugins
    for kind in _plugin_kinds(name.strip() for name in names.split(",") if name.strip()):
        kinds[kind.name] = kind
    return Registry(kinds)


def _plugin_kinds(modules: Iterable[str]) -> "Iterable[Kind]":
    from importlib import import_module

    for name in modules:
        try:
            yield from import_module(name).KINDS
        except Exception as error:  # as above
            reason = f"{type(error).__name__}: {error}"
            raise KindUnavailable(
                f"The plugin module {name} of {PLUGINS} cannot be used: {reason}"
            ) from error
