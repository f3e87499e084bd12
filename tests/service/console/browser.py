"""A real Chromium, that takes no errors: not in a script, not of the content security policy."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from playwright.async_api import Page, async_playwright, expect
from starlette.types import ASGIApp

from tests.conftest import need
from tests.service.console.stage import ADMIN, MODEL, NAME

# The contrast of everything that can be read with what lies behind it, where it is less than 4.5.
LOW_CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const { backgroundColor } = getComputedStyle(element);
    return (numbers(backgroundColor)[3] ?? 1) > 0.5 ? backgroundColor : behind(element.parentElement);
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && (one.matches("input, select") || [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())))
    .map((one) => {
      const [dark, bright] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => a - b);
      return [one.outerHTML.slice(0, 80), (bright + 0.05) / (dark + 0.05)];
    })
    .filter(([, contrast]) => contrast < 4.5);
}"""
IS_TOO_WIDE = "document.scrollingElement.scrollWidth > innerWidth"


def find_chromium() -> str:
    """Returns the path of Chromium, installed if need be."""
    need("chromium")
    found = shutil.which("chromium")
    assert found is not None
    return found


@asynccontextmanager
async def browsing(chromium: str, base: str, *forgiven: str, **options: Any) -> AsyncIterator[Page]:
    """Opens a browser; at the end, nothing may have gone wrong on its pages.

    Args:
        chromium: Its path.
        base: Where addresses start.
        *forgiven: Parts of messages that may appear.
        **options: Of the browser's context.
    """
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = await browser.new_context(base_url=base, **options)
        context.set_default_timeout(60_000)
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        await browser.close()
    complaints = [one for one in complaints if not any(part in one for part in forgiven)]
    assert not complaints, complaints


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serves an application from this event loop, and yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


async def log_in(page: Page, token: str = ADMIN, path: str = MODEL, name: str = NAME) -> None:
    """Logs in with the keyboard: the field has the focus."""
    await page.goto(path)
    await expect(page.get_by_label("Token of a reviewer or admin")).to_be_focused()
    await page.keyboard.type(token)
    await page.keyboard.press("Tab")
    await page.keyboard.type(name)
    await page.keyboard.press("Enter")
    await page.wait_for_url(lambda url: urlsplit(url).path == urlsplit(path).path)


async def tab_to(page: Page, selector: str, most: int = 40) -> None:
    """Presses Tab until something has the focus, and sees that the focus shows all the way."""
    for _ in range(most):
        await page.keyboard.press("Tab")
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", await page.evaluate("document.activeElement.outerHTML")
        if await page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")
