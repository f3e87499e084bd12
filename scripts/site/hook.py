"""What MkDocs calls while it builds the site: pages that do not lie in docs/, and links that lead out of it."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.site import reference, routes
from scripts.site.links import PAGES, REFERENCE, anchors_of, page_of_section, relink, sections

ROOT = Path(__file__).parent.parent.parent


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds what the navigation does not name: pages of docs/ to the how-tos, parts of the reference to theirs."""
    parts = {name: entries for part in config.nav or [] for name, entries in part.items()}
    named, docs = str(config.nav), Path(config.docs_dir)
    written = sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    parts["How to"] += [page for page in written if page not in named]
    pages = {page_of_section(heading): heading for heading in sections(_read(REFERENCE))}
    parts["Reference"] += [{heading: page} for page, heading in pages.items() if page not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is generated, and the pages of the repository that lie elsewhere."""
    made = {page: _read(source) for source, page in PAGES.items()}
    made |= reference.pages(_read(REFERENCE)) | {"reference/http.md": routes.page()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrites the links of what was written for the repository."""
    place = page.file.src_uri
    anchors = anchors_of(_read(REFERENCE))
    if place.startswith("reference/"):
        return relink(markdown, REFERENCE, place, anchors) if place in anchors.values() else markdown
    source = {there: source for source, there in PAGES.items()}.get(place, f"docs/{place}")
    return relink(markdown, source, place, anchors)


def _read(path: str) -> str:
    return (ROOT / path).read_text()
