"""Every page in light and dark, wide and narrow, as pictures in ``screenshots/``, to be looked at; with ``--readme``,
those of the README instead, in ``docs/pictures/``."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support import chromium
from tests.support.daemons import Daemon

ROOT = Path(__file__).resolve().parents[2]
#: The pictures of the README, and in which scheme each is taken.
PICTURES = {"overview": "light", "edit": "light", "execution": "dark"}
PICTURE_SIZE = {"width": 1180, "height": 760}
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (1440, 390)]


def populate(daemon: Daemon) -> dict[str, str]:
    """Run the examples, some of them often, and return the pages there are then: name → path."""
    client = daemon.client

    def ran(flow: str, **inputs: Any) -> str:
        return str(daemon.run(flow, **inputs)["id"])

    for n in range(9):
        ran("hello", name=f"visitor {n}")
    for _ in range(3):
        failed = ran("fails on purpose")
    ran("keeps a report")
    before = ran("squares in parallel", numbers=[1, 2])
    parallel = ran("squares in parallel", numbers=[1, 2, 3, 4, 5])
    colours = ran("colours")
    large = ran("large")
    client.run("holds a lock", {})
    waits = client.run("asks a person", {})["id"]
    while not (pending := client.messages(pending=True)):
        time.sleep(0.05)
    return {
        "overview": "/",
        "flows": "/flows",
        "flow": "/flows/squares%20in%20parallel",
        "flow-form": "/flows/inputs%20and%20outputs",
        "flow-broken": "/flows/broken%20one",
        "flow-history": "/flows/squares%20in%20parallel/history",
        "edit": "/edit?flow=squares%20in%20parallel",
        "edit-new": "/edit",
        "executions": "/executions",
        "execution": f"/executions/{parallel}",
        "execution-failed": f"/executions/{failed}",
        "execution-waiting": f"/executions/{waits}",
        "execution-large": f"/executions/{large}",
        "value": f"/executions/{large}/values?of=outputs&at=/volumes",
        "execution-log": f"/executions/{colours}",
        "compare": f"/compare?a={before}&b={parallel}",
        "messages": "/messages",
        "message": f"/messages/{pending[0]['id']}",
        "sync": "/sync",
        "failed": "/executions?type=FLOW&acknowledged=false&parent=none",
        "settings": "/settings",
        "setting": "/settings/quota",
        "files": "/files",
        "connections": "/connections",
        "webhooks": "/webhooks",
        "schedules": "/schedules",
        "vaults": "/vault_configs",
        "locks": "/locks",
        "tasks": "/tasks",
        "workers": "/workers",
        "task": "/tasks/REST",
        "audit": "/audit",
        "access": "/access",
        "not-found": "/flows/nowhere",
    }


def flows_in(folder: Path) -> Path:
    """Copy the examples into a folder and add what they do not show."""
    shutil.copytree(ROOT / "flows.example", folder)
    (folder / "broken one.py").write_text("def handler(system, this):\n    return this.success(\n")
    (folder / "holds a lock.py").write_text(
        "def handler(system, this):\n    with this.lock('production'):\n        this.sleep(3600)\n"
    )
    (folder / "large.py").write_text(
        "def handler(system, this):\n"
        "    volumes = [{'name': f'vol{n}', 'bytes': n * 4096, 'online': n % 2 == 0} for n in range(300)]\n"
        "    return {'pool': 'p1', 'volumes': volumes, 'report': 'x' * 6000}\n"
    )
    (folder / "colours.py").write_text(
        "import logging\n\n\ndef handler(system, this):\n"
        "    print('\\x1b[32mready\\x1b[0m, \\x1b[1mbold\\x1b[0m, \\x1b[31mfailed\\x1b[0m, plain')\n"
        "    logging.getLogger().warning('disk is at 91 %')\n"
        "    this.log('a value', {'count': 3}, level='error')\n"
        "    for n in range(30):\n        this.log('step', n)\n"
    )
    return folder


def main(wanted: list[str]) -> None:
    """Take the pictures of the pages named, of all if none is."""
    with tempfile.TemporaryDirectory() as home, chromium.browser() as browser:
        daemon = Daemon(Path(home) / "s", flows_in(Path(home) / "flows"))
        try:
            (_renew if wanted == ["--readme"] else _picture)(browser, daemon.start(), wanted)
        finally:
            daemon.kill()


def _picture(browser: chromium.Browser, daemon: Daemon, wanted: list[str]) -> None:
    target = ROOT / "screenshots"
    target.mkdir(exist_ok=True)
    pages = {name: path for name, path in populate(daemon).items() if not wanted or name in wanted}
    for scheme, width in LOOKS:
        looks = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
        tab = chromium.Tab(browser, daemon.url, daemon.token(), **looks)
        for name, path in pages.items():
            tab.page.goto(path)
            tab.page.wait_for_timeout(600 if "edit" in name or "sett" in name else 150)  # the editor comes later
            tab.page.screenshot(path=target / f"{name}-{scheme}-{width}.png", full_page=True)
        for complaint in tab.wrong:
            sys.stderr.write(complaint + "\n")
        tab.page.get_by_role("button", name="Log out").click()
        tab.page.screenshot(path=target / f"login-{scheme}-{width}.png", full_page=True)
        tab.close()


def _renew(browser: chromium.Browser, daemon: Daemon, _: list[str]) -> None:
    """Take the pictures of the README: what a screen shows, without scrolling."""
    pages = populate(daemon)
    for name, scheme in PICTURES.items():
        tab = chromium.Tab(browser, daemon.url, daemon.token(), color_scheme=scheme, viewport=PICTURE_SIZE)
        tab.page.goto(pages[name])
        if name == "edit":  # something is wrong with it, and the margin says what
            tab.page.locator(".cm-line", has_text="wait_for").click()
            tab.page.keyboard.press("End")
            tab.page.keyboard.press("Backspace")
            tab.page.keyboard.press("Home")
            tab.page.keyboard.press("Home")  # the first goes to the indentation
            tab.page.locator(".cm-lint-marker-error").hover()
            tab.page.locator(".cm-tooltip-lint").wait_for()
        tab.page.screenshot(path=ROOT / "docs/pictures" / f"{name}.png")
        tab.close()


if __name__ == "__main__":
    main(sys.argv[1:])
