"""What a company's flows talk to, on loopback: mail, an order book, machines, a router, jobs, services that fail.

One server in threads of its own. Nothing in it is random: what fails, how often and for whom is said by its attributes,
which tests may change while it runs. ``seen`` holds every request.
"""

from __future__ import annotations

import base64
import http.server
import itertools
import json
import threading
import time
import urllib.parse
from collections import Counter, defaultdict

ORDERS = [
    {"id": number, "customer": ("acme", "initech", "globex")[number % 3], "cents": 1000 + 10 * number}
    for number in range(1, 24)
]
SERVERS = [
    {"name": "web 1", "site": "vienna", "cpu": 8, "ram_gb": 32, "os": "debian 12"},
    {"name": "web 2", "site": "vienna", "cpu": 8, "ram_gb": 32, "os": "debian 11"},
    {"name": "db; primary", "site": "graz", "cpu": 32, "ram_gb": 256, "os": "debian 12"},
]
STATUS_PAGE = """<html><body><h1>Status</h1><table>
<tr class="component"><td>API</td><td>operational</td></tr>
<tr class="component"><td>Mail &amp; calendar</td><td>degraded</td></tr>
</table></body></html>"""


class Office:
    """Start it with ``with``; ``url`` says where it is."""

    def __init__(self) -> None:
        self.seen = []  # (method, path without query, query, headers by lower-case name, body: JSON or text)
        self.services = {}  # name → HTTP status, 200 if it is not here
        self.failures = Counter()  # name → how often /flaky/name has yet to fail
        self.passwords = {}  # user → password, for /crm
        self.release_health = {}  # version → status of its health check
        self.router = "blue"
        self.releases = {"blue": "1.0", "green": ""}
        self.machines = {}
        self.full_sites = set()
        self.orders_at_once = 4  # then one request is refused
        self._asked = 0
        self._progress = defaultdict(int)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        handler = type("Handler", (Handler,), {"office": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="office")

    def __enter__(self) -> Office:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def sent(self, path: str, method: str = "POST") -> list:
        """Return the bodies of requests to ``path``, in order."""
        return [body for verb, where, _, _, body in self.seen if (verb, where) == (method, path)]

    def answer(self, method, target, headers, body):
        """Return status, body and headers of the answer to a request."""
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        room, _, rest = urllib.parse.unquote(url.path).strip("/").partition("/")
        if room == "slow":
            time.sleep(float(query.get("seconds", 1)))
        with self._lock:
            self.seen.append((method, urllib.parse.unquote(url.path), query, headers, body))
            answer = getattr(self, f"_{room}", None)
            return answer(method, rest, query, headers, body) if answer else (404, {"error": "no such room"}, {})

    def _slow(self, *_):
        return 200, {"patience": True}, {}

    def _mail(self, *_):
        return 202, {"queued": True}, {}

    _pager = _chat = _mail

    def _echo(self, method, rest, query, headers, body):
        return 200, {"method": method, "path": rest, "query": query, "body": body}, {}

    def _servers(self, *_):
        return 200, SERVERS, {}

    def _statuspage(self, *_):
        return 200, STATUS_PAGE, {"Content-Type": "text/html"}

    def _services(self, method, name, *_):
        status = self.services.get(name, 200)
        return status, {"service": name, "status": "ok" if status == 200 else "down"}, {}

    def _flaky(self, method, name, *_):
        if self.failures[name] > 0:
            self.failures[name] -= 1
            return 503, {"error": "try later"}, {}
        return 200, {"name": name}, {}

    def _orders(self, method, rest, query, *_):
        self._asked += 1
        if self._asked % (self.orders_at_once + 1) == 0:
            return 429, {"error": "slow down"}, {"X-RateLimit-Reset": "0.05"}
        page, size = int(query.get("page", 1)), int(query.get("per_page", 5))
        found = ORDERS[(page - 1) * size : page * size]
        following = page + 1 if page * size < len(ORDERS) else None
        return 200, {"items": found, "next_page": following, "total": len(ORDERS)}, {}

    def _crm(self, method, rest, query, headers, body):
        scheme, _, code = headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(code).decode().partition(":") if scheme == "Basic" else ("", "", "")
        token = headers.get("x-api-token", "")
        if token not in self.passwords.values() and self.passwords.get(user, object()) != password:
            return 401, {"error": "who are you?"}, {}
        return 200, {"contacts": [{"name": "Ada"}], "via": query.get("via", "")}, {}

    def _customers(self, method, rest, query, headers, body):
        if not isinstance(body, dict) or "@" not in body.get("email", ""):
            return 422, {"error": "an e-mail address needs an @"}, {}
        return 201, {"id": next(self._numbers)}, {}

    def _machines(self, method, rest, query, headers, body):
        if method == "POST":
            if body.get("site") in self.full_sites:
                return 507, {"error": "the site is full"}, {}
            number = f"vm-{next(self._numbers)}"
            self.machines[number] = {**body, "id": number, "state": "building", "asked": 0}
            return 201, self.machines[number], {}
        machine = self.machines.get(rest)
        if machine is None:
            return 404, {"error": "no such machine"}, {}
        if method == "DELETE":
            del self.machines[rest]
            return 204, None, {}
        machine["asked"] += 1
        if machine["asked"] >= 3:
            machine["state"] = "broken" if "broken" in machine.get("name", "") else "running"
        return 200, machine, {}

    def _jobs(self, method, job, *_):
        if method == "POST":
            return 201, {"id": f"job-{next(self._numbers)}"}, {}
        self._progress[job] += 25
        return 200, {"id": job, "percent": self._progress[job], "done": self._progress[job] >= 100}, {}

    def _router(self, method, rest, query, headers, body):
        if method == "PUT":
            self.router = body["active"]
        return 200, {"active": self.router}, {}

    def _releases(self, method, colour, query, headers, body):
        colour, _, health = colour.partition("/")
        if health:
            return self.release_health.get(self.releases[colour], 200), {"version": self.releases[colour]}, {}
        if method == "PUT":
            self.releases[colour] = body["version"]
        return 200, {"colour": colour, "version": self.releases[colour]}, {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    office: Office

    def answer(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answer, more = self.office.answer(self.command, self.path, headers, body)
        content = b"" if answer is None else answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **more}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - names the library calls

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:  # a client that went away
            self.close_connection = True

    def log_message(self, *_):
        pass
