"""What the soak runs, and what each of its flows has to leave behind."""

from __future__ import annotations

import random

from tests.support import callers

_METADATA = "# /// script\n# [tool.headrace]\n# {}\n# ///\n"

FLOWS = {
    "quick": "def handler(system, this, inputs):\n    this.set_output('n', inputs['n'])\n",
    "hook": _METADATA.format("webhook = true")
    + "def handler(system, this, inputs):\n    this.set_output('n', inputs['json']['n'])\n",
    "parent": (
        "def handler(system, this, inputs):\n    n = inputs['n']\n"
        "    this.wait_for([this.flow('quick', n=n, wait=False) for _ in range(3)])\n    this.set_output('n', n)\n"
    ),
    "asks_world": (
        "def handler(system, this, inputs):\n    url = system.setting('world').get('value')\n"
        "    this.task('REST', url=f'{url}/get?of={this.id}')\n    this.set_output('n', inputs['n'])\n"
    ),
    "tells_world": (
        "def handler(system, this, inputs):\n    url = system.setting('world').get('value')\n"
        "    this.task('REST', method='post', url=f'{url}/post?of={this.id}', retry_backoff=False)\n"
        "    this.set_output('n', inputs['n'])\n"
    ),
    "naps": (
        "def handler(system, this, inputs):\n    this.log('begins')\n    this.sleep(inputs['s'])\n"
        "    this.log('is up')\n    this.set_output('n', inputs['n'])\n"
    ),
    "asks": (
        "def handler(system, this, inputs):\n    answer = this.message('go on?', request='n?')\n"
        "    this.set_output('n', inputs['n'] if answer.get('response')['string'] == 'yes' else None)\n"
    ),
    "counts": (
        "def handler(system, this, inputs):\n    with this.lock('the count'):\n"
        "        count = system.setting('count').get('value')\n        system.setting('count', value=count + 1)\n"
        "    system.file(f'of/{inputs[\"n\"] % 20}').save_text_content(str(inputs['n']))\n"
        "    this.set_output('n', inputs['n'])\n"
    ),
    "tick": _METADATA.format('schedule = {cron = "* * * * *", catchup = "all"}')
    + "def handler(system, this):\n    this.set_output('n', 0)\n",
}
#: How often each is asked for, in parts.
SHARES = {"quick": 6, "hook": 8, "parent": 3, "asks_world": 3, "tells_world": 2, "naps": 3, "asks": 2, "counts": 3}
#: How many children each makes, tasks included.
CHILDREN = {"parent": 3, "asks_world": 1, "tells_world": 1}


def ask(chance: random.Random, n: int, key: str) -> callers.Request:
    """The next request of somebody."""
    (flow,) = chance.choices(list(SHARES), list(SHARES.values()))
    if flow == "hook":
        return callers.Request(flow, "/webhook/hook?async=1", {"n": n}, {"X-GitHub-Delivery": key})
    inputs = {"n": n, "s": round(chance.uniform(0.5, 40), 1)} if flow == "naps" else {"n": n}
    return callers.Request(flow, f"/api/v1/flows/{flow}/run", {"inputs": inputs}, {"Idempotency-Key": key})


def number(request: callers.Request) -> int:
    """The number that has to come out of it."""
    return int(request.body["n"] if request.flow == "hook" else request.body["inputs"]["n"])
