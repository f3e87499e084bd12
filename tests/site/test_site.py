"""The site builds without a warning, its links lead somewhere, and no page asks another host for anything."""

from __future__ import annotations

import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from rollout.config import Settings
from rollout.errors import HTTP_ERRORS
from tests.conftest import BIN, ROOT

# What a browser fetches by itself, by the element and the attribute that names it.
FETCHED = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("link", "href"),
    ("use", "href"),
}


class Page(HTMLParser):
    """The links, the anchors and the fetched files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif (tag, name) in FETCHED and value:
                self.fetched.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: that drops the warnings before --strict counts them.
    command = [str(BIN / "python"), "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(found) > 50
    return found


def test_every_link_leads_to_a_page_and_to_an_anchor_that_is_there(site: Path, pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(parts.fragment)
            is_there = there.exists() and (not anchor or there not in pages or anchor in pages[there].anchors)
            if not is_there and anchor != "__skip":
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


def test_no_page_asks_another_host_for_anything(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert page.fetched
        for url in page.fetched:
            if urlsplit(url).scheme != "data":
                assert not urlsplit(url).netloc, (path, url)
                assert (path.parent / urlsplit(url).path).exists(), (path, url)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        assert "url(http" not in text.replace('"', ""), sheet
        assert "@import" not in text, sheet


def test_the_reference_comes_from_the_code(site: Path) -> None:
    def text(page: str) -> str:
        return (site / "reference" / f"{page}.html").read_text()

    for name in Settings.__struct_fields__:
        assert f"<code>ROLLOUT_{name.upper()}</code>" in text("settings")
    for error in HTTP_ERRORS:
        assert error.title in text("problems")
    assert "histogram" in text("metrics")
    assert 'id="rollout-split-ramp"' in text("cli")
    assert "POST /v1/models/digits/predict" in text("http")
    assert 'id="body-classprediction"' in text("http")
    assert 'id="rollout.bundle.pack.pack"' in text("python")
    assert 'id="rollout.ray.predict_to"' in text("python")
    assert 'id="free-lengths"' in text("fields")
