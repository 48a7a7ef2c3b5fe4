"""A table on a terminal or in Markdown, from rows of texts."""

from collections.abc import Sequence

from gamma_orch.core.render import Style, table_markdown


def table(header: Sequence[str], rows: Sequence[Sequence[str]], output: Style, empty: str) -> None:
    """Print it; `empty` where there are no rows."""
    from gamma_orch.cli.report import show

    if output is Style.MARKDOWN:
        show(table_markdown(header, rows))
        return
    if not rows:
        show(empty + "\n")
        return
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        show("  ".join(cells).rstrip() + "\n")
