"""What S3 has, by names of any characters: percent-encoded, as it lists them to whoever asks for that.

The client of object storage cannot ask, and refuses a whole page for one name that is none. It signs what we ask.
"""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus, urlencode

import aiohttp

if TYPE_CHECKING:
    from obstore.store import S3Store

ANY = "any"  # a name: what is signed has one
# Of 1000 files whose names have 1024 bytes, each of them encoded.
PAGE_BYTES = 16 * 1024 * 1024
FILE = re.compile(r"<Contents>.*?</Contents>", re.DOTALL)


class NotListedError(Exception):
    """The storage does not list so."""


def list_encoded(url: str, store: S3Store, within: timedelta, most: int) -> dict[str, str]:
    """Returns each file under a URL, with what changes when its content does.

    Args:
        url: Bucket and path.
        store: The storage there, as obstore opened it.
        within: The time of each page.
        most: After so many files and one more, it ends.

    Raises:
        NotListedError: If the storage does not list so.
    """
    return asyncio.run(_list(url, store, within, most))


async def _list(url: str, store: S3Store, within: timedelta, most: int) -> dict[str, str]:
    found: dict[str, str] = {}
    begin = f"{store.prefix}/" if store.prefix else ""
    async for page in _pages(url, store, begin, within):
        for file in FILE.findall(page):
            name = unquote_plus(_said("Key", file))
            if name.startswith(begin):
                found[name.removeprefix(begin)] = _said("ETag", file) or _said("LastModified", file)
        if len(found) > most:
            break
    return found


async def _pages(url: str, store: S3Store, begin: str, within: timedelta) -> AsyncIterator[str]:
    import obstore  # noqa: PLC0415  an extra

    bucket = obstore.sign(store, "GET", ANY, within).partition("?")[0].removesuffix(f"/{quote(begin)}{ANY}")
    asked = {"list-type": "2", "encoding-type": "url", "prefix": begin}
    limit = aiohttp.ClientTimeout(total=within.total_seconds())
    async with aiohttp.ClientSession(timeout=limit, trust_env=True, auto_decompress=False) as session:
        while True:
            # The name that is signed ends up in the last parameter, and S3 takes no notice of those with x-.
            place = f"{bucket}?{urlencode(asked)}&x-name="
            listing = type(store).from_url(
                url, endpoint=place, virtual_hosted_style_request=True, client_options={"allow_http": True}
            )
            page = await _read(session, obstore.sign(listing, "GET", ANY, within))
            yield page
            following = _said("NextContinuationToken", page)
            if not following or following == asked.get("continuation-token"):
                return
            asked["continuation-token"] = following


async def _read(session: aiohttp.ClientSession, url: str) -> str:
    from yarl import URL  # noqa: PLC0415  as aiohttp has it

    body = bytearray()
    try:
        headers = {"Accept-Encoding": "identity"}
        async with session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > PAGE_BYTES:
                    raise NotListedError
        page = body.decode()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        raise NotListedError from None
    if response.status != 200 or _said("EncodingType", page) != "url":
        raise NotListedError
    return page


def _said(what: str, text: str) -> str:
    found = re.search(f"<{what}>([^<]*)</{what}>", text)
    return html.unescape(found[1]) if found else ""
