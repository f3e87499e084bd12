"""Pages from templates, with the headers that keep everything else out of them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import jinja2
import msgspec
from starlette.responses import Response

from rollout.words import percent
from service.console import panels, phrases

FOLDER = Path(__file__).parent
STATIC = {  # panels/label.js is panels-label.js
    "-".join(path.relative_to(FOLDER / "static").parts): path.read_bytes()
    for path in (FOLDER / "static").rglob("*")
    if path.is_file()
}
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page(template: str, status: int = 200, **context: object) -> Response:
    """Returns a template as an HTML page.

    Args:
        template: Its name.
        status: Of HTTP.
        **context: What it shows.
    """
    return Response(render(template, **context), status, HEADERS, "text/html")


def render(template: str, **context: object) -> str:
    """Returns a template as HTML."""
    return _environment().get_template(template).render(context)


def data(value: object) -> Response:
    """Returns plain values as JSON, for a script."""
    return Response(msgspec.json.encode(value), headers=HEADERS, media_type="application/json")


def static(name: str, version: str) -> Response | None:
    """Returns a style sheet or script, or ``None`` if there is none of this name.

    It may be kept for good where the address names this very content: while replicas are replaced, a page of one
    may ask another.
    """
    if name not in STATIC:
        return None
    kept = "public, max-age=31536000, immutable" if version == _version(name) else "no-store"
    headers = HEADERS | {"Cache-Control": kept}
    return Response(STATIC[name], headers=headers, media_type=MEDIA_TYPES[Path(name).suffix])


@cache
def _version(name: str) -> str:
    return hashlib.sha256(STATIC[name]).hexdigest()[:12]


def _written(value: object) -> str:
    """Writes plain values as JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["static"] = lambda name: f"/console/static/{name}?v={_version(name)}"
    environment.globals |= {
        "bars": panels.bars,
        "keys_of": panels.keys_of,
        "toggles_of": panels.toggles_of,
        "most_buttons": panels.MOST_BUTTONS,
        "panel_files": panels.panel_files,
    }
    environment.filters |= {
        "percent": percent,
        "count": phrases.count,
        "latency": phrases.latency,
        "fraction": phrases.fraction,
        "sentence": phrases.sentence,
        "rate": phrases.rate,
        "when": phrases.when,
        "written": _written,
    }
    return environment
