"""Debian's Chromium, driven by Playwright: one for all tests, a context for each, and what went wrong on its pages."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import playwright.sync_api as playwright
from playwright.sync_api import Browser as Browser

PATH = Path("/usr/bin/chromium")
#: What has to come, comes within a second or two; other tests may have the machine to themselves for longer.
_PATIENCE_MS = 30_000
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

playwright.expect.set_options(timeout=_PATIENCE_MS)


@contextlib.contextmanager
def browser() -> Iterator[playwright.Browser]:
    """A headless Chromium with an empty profile that is gone afterwards."""
    with tempfile.TemporaryDirectory() as home, playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=PATH, args=_FLAGS, headless=True, env={"HOME": home, "PATH": "/usr/bin:/bin"}
        )
        yield chromium
        chromium.close()


class Tab:
    """A page, logged in at a daemon. ``wrong``: what the console complained of, refusals of the policy among it."""

    def __init__(self, chromium: playwright.Browser, url: str, token: str, **looks: object) -> None:
        self.context = chromium.new_context(base_url=url, **looks)
        self.context.set_default_timeout(_PATIENCE_MS)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"{self.page.url}: {error}"))
        self.page.goto("/login")
        self.page.fill("input[name=token]", token)
        self.page.click("main button")
        self.page.wait_for_url("**/")

    def _console(self, message: playwright.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{self.page.url}: {message.text}")

    def close(self) -> None:
        """Forget it."""
        self.context.close()
