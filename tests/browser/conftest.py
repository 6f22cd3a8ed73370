"""Tests in a real Chromium: one browser and one daemon for all of them, on a real repository that it writes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.daemon import assets
from tests.support.daemons import Daemon
from tests.support.repositories import WorkingRepository, git

chromium = pytest.importorskip("tests.support.chromium", reason="Playwright is not installed")
if not chromium.PATH.exists():
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)
if not assets.SCRIPT:
    pytest.skip("the scripts of the pages were not built: make ui", allow_module_level=True)

FLOWS = {
    "talks": "def handler(system, this):\n"
    "    for n in range(3):\n        this.log(f'line {n}')\n        this.sleep(0.2)\n"
    "    return {'lines': 3}\n",
    "asks": "def handler(system, this):\n"
    "    answer = this.message('Deploy?', body={'type': 'object', 'properties': {\n"
    "        'where': {'element': 'string', 'type': 'string', 'label': 'Where'},\n"
    "        'go': {'element': 'submit', 'type': 'boolean', 'label': 'Go'}}}).get('response')\n"
    "    return {'where': answer['where']}\n",
    "declared": "# /// script\n# [tool.headrace.input_schema]\n# required = ['volume']\n"
    "# [tool.headrace.input_schema.properties]\n# volume = {type = 'string', title = 'Volume', minLength = 2}\n"
    "# copies = {type = 'integer', title = 'Copies', minimum = 1, default = 1}\n"
    "# hosts = {type = 'array', title = 'Hosts'}\n# ///\n"
    "def handler(system, this, inputs):\n    return inputs\n",
    "large": "def handler(system, this):\n"
    "    rows = [{'row': n, 'of': {'pool': 'p', 'n': n}} for n in range(250)]\n"
    "    this.set_output(rows=rows, file=['z' * 50] * 20_000, pin='4711')\n",
    "guards": "def handler(system, this):\n    this.flow('large', protect_outputs=['pin'])\n",
    "floods": "def handler(system, this):\n    this.log('before')\n    this.message('Go on?', message='Much comes.')\n"
    "    for n in range(3000):\n        print(f'line {n}')\n",
    "waits": "def handler(system, this):\n    this.sleep(3600)\n",
    "fails": "def handler(system, this):\n    numbers = []\n    return numbers[3]\n",
    "broken": "def handler(system, this):\n    return (\n",
    "at night": "# /// script\n# [tool.headrace]\n# schedule = '30 2 * * *'\n# timezone = 'Europe/Vienna'\n"
    "# webhook = {name = 'now', auth = 'github', secret = 'secret.env(NIGHT)'}\n# ///\n"
    "def handler(system, this):\n    return this.success()\n",
    "parent": "def handler(system, this):\n    this.flow('fails', wait=False)\n    this.flow('talks')\n",
    "hostile": "def handler(system, this):\n"
    "    print('\\x1b[31m<img src=x onerror=alert(1)>\\x1b[0m')\n"
    "    this.set_output('</script><script>alert(1)</script>', '\"onload=alert(1)')\n"
    "    this.save(name='<svg onload=alert(1)>')\n",
}


class Place:
    """The daemon, the repository it follows, and the browser."""

    def __init__(self, browser: chromium.Browser, daemon: Daemon, upstream: Path) -> None:
        self.browser = browser
        self.daemon = daemon
        self.upstream = upstream

    def tab(self, **looks: object) -> chromium.Tab:
        """A page that is logged in."""
        return chromium.Tab(self.browser, self.daemon.url, self.daemon.token(), **looks)

    def committed(self, path: str) -> str:
        """Return what is at ``path`` in the repository."""
        return git(self.upstream, "show", f"main:{path}")


@pytest.fixture(scope="module")  # Playwright keeps an event loop running in the thread, which others cannot stand
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Everything together."""
    home = tmp_path_factory.mktemp("browser")
    work = WorkingRepository(home / "work")
    for name, text in FLOWS.items():
        (work.directory / f"{name}.py").write_text(text)
    git(work.directory, "add", ".")
    git(work.directory, "commit", "--quiet", "--message", "the flows")
    upstream = home / "upstream.git"
    git(home, "clone", "--quiet", "--bare", str(work.directory), str(upstream))
    daemon = Daemon(home / "s", upstream.as_uri())
    daemon.environment |= {"HEADRACE_SOURCE__WRITE_BACK": "true", "HEADRACE_RUN__CANCEL_GRACE": "1s"}
    link = "https://traces.example/trace/{trace}?execution={execution}"
    daemon.environment["HEADRACE_TRACES__LINK"] = json.dumps({"url": link})
    with chromium.browser() as browser:
        daemon.start()
        yield Place(browser, daemon, upstream)
        assert daemon.stop() == 0


@pytest.fixture
def tab(place: Place) -> Iterator[chromium.Tab]:
    """A page on which nothing may go wrong."""
    tab = place.tab()
    yield tab
    tab.close()
    assert tab.wrong == []
