"""The report as one page of HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2
import msgspec

from rollout.bundle.manifest import read_whole
from rollout.bundle.report import Section


def render(sections: Sequence[Section], folder: Path) -> str:
    """Returns sections as one HTML page with everything inside; ``folder`` is where the bundle lies."""

    def embed(file: str) -> str:
        # As an image, not as elements of the page: whatever a bundle brings along, it cannot run there.
        return inline(read_whole(folder / file), "image/svg+xml" if file.endswith(".svg") else "image/png")

    def inline(data: bytes, kind: str) -> str:
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"

    page = _environment().get_template("report.html")
    return page.render(sections=sections, embed=embed, inline=inline)


def fragment(sections: Sequence[Section]) -> str:
    """Returns the sections as a part of a page, without pictures and sounds, which lie in the bundle."""
    sections = [msgspec.structs.replace(section, pictures=[], examples=[]) for section in sections]
    return _environment().get_template("fragment.html").render(sections=sections)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("rollout"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
