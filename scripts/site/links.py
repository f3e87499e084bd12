"""Links between files of the repository become links between pages of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from markdown.extensions.toc import slugify

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]*)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^()\s]+)\)")
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.M | re.S)

PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "k8s/README.md": "kubernetes.md",
    "k8s/components/monitoring/RUNBOOK.md": "runbook.md",
}
REFERENCE = "REFERENCE.md"


def sections(text: str) -> dict[str, str]:
    """Takes the reference apart.

    Args:
        text: A page with headings of the second level.

    Returns:
        The text of each section by its heading, in order; what stands before the first one is left out.
    """
    parts = re.split(r"^## (.+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def page_of_section(heading: str) -> str:
    """Returns where the section of the reference with this heading lies in the site."""
    return f"reference/{slugify(heading, '-')}.md"


def anchors_of(text: str) -> dict[str, str]:
    """Returns the page of each anchor of the reference."""
    return {
        slugify(name, "-"): page_of_section(heading)
        for heading, body in sections(text).items()
        for name in [heading, *re.findall(r"^#{3,} (.+)$", body, re.M)]
    }


def relink(text: str, source: str, page: str, anchors: dict[str, str]) -> str:
    """Rewrites the links of a page, as they are in the repository, for the site.

    Args:
        text: The page in Markdown.
        source: Where it comes from in the repository, such as ``k8s/README.md``.
        page: Where it lies in the site, such as ``kubernetes.md``.
        anchors: The page of each anchor of the reference.

    Returns:
        The page. What leads to a file that the site does not have is its name, and no link.
    """

    def to(match: re.Match[str], write: Callable[[str], str]) -> str:
        path, _, anchor = match[2].partition("#")
        if ":" in path:
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source
        target = _place(found, anchor, anchors)
        if target is None:
            return match[1]
        if target == page and anchor:
            return write(f"#{anchor}")
        there = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return write(f"{there}#{anchor}" if anchor else there)

    parts = FENCED.split(text)
    for number in range(0, len(parts), 2):  # every second part is a block of code
        text = LINK.sub(lambda match: to(match, lambda there: f"[{match[1]}]({there})"), parts[number])
        parts[number] = IMAGE.sub(lambda match: to(match, lambda there: f"![{match[1]}]({there})"), text)
    return "".join(parts)


def _place(found: str, anchor: str, anchors: dict[str, str]) -> str | None:
    if found == REFERENCE:
        return anchors.get(anchor, "reference/index.md")
    if found in PAGES:
        return PAGES[found]
    return found.removeprefix("docs/") if found.startswith("docs/") else None
