"""Objects that show themselves in a notebook: a small table, of which every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence


def show(
    title: str, text: Sequence[str] = (), columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> str:
    """Returns HTML for ``_repr_html_``.

    Args:
        title: What it is.
        text: Sentences, a paragraph each; empty ones are left out.
        columns: The heads of a table.
        rows: Its cells; without any there is no table.
    """
    import jinja2  # noqa: PLC0415  where nothing is shown, it need not be loaded

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rollout"),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("notebook.html")
    return page.render(title=title, text=[line for line in text if line], columns=columns, rows=rows)


def figure(number: float | None) -> str:
    """Returns a figure as it stands in a table; nothing where it is not known."""
    return "" if number is None else f"{number:.4g}"
