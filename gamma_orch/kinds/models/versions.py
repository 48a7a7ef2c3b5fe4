"""The versions of the installed packages that a key depends on, from their metadata: nothing is imported."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed(name: str) -> str:
    """The version; empty where the package is not installed. A local label (+cpu) says nothing of results."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return ""
