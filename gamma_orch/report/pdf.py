"""A PDF of the page of a report, by WeasyPrint, which draws with Pango. Called by `gamma report`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gamma_orch.core.provider import GammaError

if TYPE_CHECKING:
    import weasyprint  # type: ignore[import-untyped]

PACKAGES = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"
INSTALL = f"apt-get install --no-install-recommends {PACKAGES}"


class NoPdf(GammaError):
    """This machine cannot make one."""


def document(page: str) -> "weasyprint.Document":
    """Raises NoPdf."""
    try:
        import weasyprint
    except ImportError:
        raise NoPdf("A PDF is made by WeasyPrint: pip install 'gamma-orch[monitoring]'") from None
    except OSError as error:
        raise NoPdf(
            f"A PDF is drawn by Pango, which is not on this machine. To install it: {INSTALL}"
        ) from error
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it tells of each style that is for screens only
    return weasyprint.HTML(string=page, url_fetcher=_nothing).render()


def written(page: str, path: Path) -> None:
    """Raises NoPdf, or OSError."""
    document(page).write_pdf(path)


def _nothing(url: str, *_: Any, **__: Any) -> Any:
    raise ValueError(f"a report asks nobody for anything: {url}")
