"""A vault: the key-value engine version 2, AppRole, namespaces and the seal, as HashiCorp Vault 1.15 answers over HTTP.

There is no package of the real one to test with, so this one is held to it by hvac, an independent client: see
``tests/tasks/test_vault_server.py``. It runs in threads of its own; Vault's method LIST is one the standard library's
server takes and others refuse.
"""

from __future__ import annotations

import dataclasses
import datetime
import http.server
import json
import ssl
import threading
import time
import urllib.parse
import uuid

ROOT = "hvs.root-token-of-the-tests"
VERSIONS_MAX = 10


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


@dataclasses.dataclass
class Version:
    data: dict | None
    created: str = dataclasses.field(default_factory=now)
    deleted: str = ""
    destroyed: bool = False

    def shown(self, **more):
        return {"created_time": self.created, "deletion_time": self.deleted, "destroyed": self.destroyed, **more}


@dataclasses.dataclass
class Secret:
    versions: dict[int, Version] = dataclasses.field(default_factory=dict)
    current: int = 0
    created: str = dataclasses.field(default_factory=now)
    custom: dict | None = None
    cas_required: bool = False

    def write(self, data):
        self.current += 1
        self.versions[self.current] = Version(data)
        self.versions.pop(self.current - VERSIONS_MAX, None)
        return self.metadata(self.current)

    def metadata(self, number):
        return self.versions[number].shown(version=number, custom_metadata=self.custom)


@dataclasses.dataclass
class Token:
    namespace: str
    ends: float
    paths: tuple[str, ...] = ("",)  # prefixes it may use


class VaultServer:
    """Start it with ``with``. Everything but ``url`` may be changed while it runs."""

    def __init__(self, tls: ssl.SSLContext | None = None, namespaces: tuple[str, ...] = ("",)) -> None:
        self.sealed = False
        self.mounts = {"secret"}
        self.secrets = {namespace: {} for namespace in namespaces}  # → mount/path → Secret
        self.tokens = {ROOT: Token("", float("inf"))}
        self.roles = {}  # role id → secret id, lease in seconds, namespace, paths
        self.seen = []  # (method, path with query, headers)
        self.answers = []  # what to answer next instead, one by one: (status, body, headers), or None: hang up
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"vault": self}))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="vault-server")

    def __enter__(self) -> VaultServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def put(self, path: str, data: dict, *, mount: str = "secret", namespace: str = "") -> None:
        """Write a secret from the side."""
        self.secrets[namespace].setdefault(f"{mount}/{path}", Secret()).write(data)

    def data(self, path: str, *, mount: str = "secret", namespace: str = "") -> dict | None:
        """Return the newest version."""
        secret = self.secrets[namespace][f"{mount}/{path}"]
        return secret.versions[secret.current].data

    def role(self, role_id: str, secret_id: str, *, lease_s: int = 3600, namespace: str = "", paths=("",)) -> None:
        self.roles[role_id] = (secret_id, lease_s, namespace, paths)

    @property
    def logins(self) -> int:
        return sum(path == "/v1/auth/approle/login" for _, path, _ in self.seen)

    def answer(self, method, target, headers, text):
        """Return status, body and headers of the answer to a request."""
        self.seen.append((method, target, headers))
        if self.answers:
            return self.answers.pop(0)
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = urllib.parse.unquote(url.path).removeprefix("/v1/").strip("/")
        try:
            body = json.loads(text or "{}")
        except ValueError:
            return refused(400, "failed to parse JSON input: invalid character")
        if path.startswith("sys/"):
            return self._system(path, method)
        if self.sealed:
            return refused(503, "Vault is sealed")
        namespace = headers.get("X-Vault-Namespace", "").strip("/")
        if namespace not in self.secrets:
            return refused(404, f'no handler for route "{namespace}/{path}". route entry not found.')
        if path == "auth/approle/login":
            return self._login(body, namespace)
        token = self.tokens.get(headers.get("X-Vault-Token", ""))
        if token is None or token.ends < time.monotonic() or token.namespace not in ("", namespace):
            return refused(403, "permission denied")
        if path == "auth/token/lookup-self":
            return answered({"id": headers["X-Vault-Token"], "policies": ["default"], "ttl": 0})
        return self._engine(
            "LIST" if method == "GET" and query.get("list") == "true" else method, path, query, body, namespace, token
        )

    def _system(self, path, method):
        match path:
            case "sys/seal" if method in ("PUT", "POST"):
                self.sealed = True
                return DONE
            case "sys/unseal":
                self.sealed = False
        state = {"type": "shamir", "initialized": True, "sealed": self.sealed, "t": 1, "n": 1, "version": "1.15.0"}
        return (503 if self.sealed and path == "sys/health" else 200), state, {}

    def _login(self, body, namespace):
        if not body.get("role_id"):
            return refused(400, "missing role_id")
        secret_id, lease_s, home, paths = self.roles.get(body["role_id"], (None, 0, "", ()))
        if secret_id is None or home != namespace or body.get("secret_id") != secret_id:
            return refused(400, "invalid role or secret ID")
        token = f"hvs.{uuid.uuid4().hex}"
        self.tokens[token] = Token(namespace, time.monotonic() + lease_s, paths)
        auth = {
            "client_token": token, "accessor": uuid.uuid4().hex, "policies": ["default"],
            "token_policies": ["default"], "metadata": {"role_name": "tests"}, "lease_duration": lease_s,
            "renewable": True, "entity_id": str(uuid.uuid4()), "token_type": "service", "orphan": True,
        }  # fmt: skip
        return answered(None, auth=auth)

    def _engine(self, method, path, query, body, namespace, token):
        mount = next((m for m in self.mounts if path.startswith(f"{m}/")), None)
        if mount is None:
            return refused(404, f'no handler for route "{path}". route entry not found.')
        section, _, name = path.removeprefix(f"{mount}/").partition("/")
        if not any(name.startswith(prefix) for prefix in token.paths):
            return refused(403, "1 error occurred:\n\t* permission denied\n\n")
        secrets, key = self.secrets[namespace], f"{mount}/{name}"
        match section, method:
            case "data", "GET":
                return read(secrets.get(key), int(query.get("version", 0)))
            case "data", "POST" | "PUT":
                return write(secrets, key, body)
            case "data", "DELETE":
                if key in secrets:
                    secrets[key].versions[secrets[key].current].deleted = now()
                return DONE
            case "delete" | "undelete" | "destroy", "POST" | "PUT":
                return change(secrets.get(key), section, body)
            case "metadata", "LIST":
                return names(secrets, key)
            case "metadata", "GET":
                return metadata(secrets.get(key))
            case "metadata", "POST" | "PUT":
                secret = secrets.setdefault(key, Secret())
                secret.cas_required = body.get("cas_required", secret.cas_required)
                secret.custom = body.get("custom_metadata", secret.custom)
                return DONE
            case "metadata", "DELETE":
                secrets.pop(key, None)
                return DONE
        return refused(405, "unsupported operation")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:  # a client that does not trust us, or does not wait
            self.close_connection = True

    def answer(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.vault.answer(self.command, self.path, dict(self.headers), text)
        if answer is None:
            self.close_connection = True
            return
        status, body, headers = answer
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_LIST = answer  # noqa: N815

    def log_message(self, *_):
        pass


DONE = (204, None, {})


def refused(status, *words):
    return status, {"errors": list(words)}, {}


def nothing():
    return refused(404)


def answered(data, *, status=200, auth=None):
    answer = {
        "request_id": str(uuid.uuid4()), "lease_id": "", "renewable": False, "lease_duration": 0, "data": data,
        "wrap_info": None, "warnings": None, "auth": auth,
    }  # fmt: skip
    return status, answer, {}


def read(secret, number):
    version = secret and secret.versions.get(number or secret.current)
    if not version:
        return nothing()
    gone = bool(version.deleted) or version.destroyed
    shown = secret.metadata(number or secret.current)
    return answered({"data": None if gone else version.data, "metadata": shown}, status=404 if gone else 200)


def write(secrets, key, body):
    if not isinstance(body.get("data"), dict):
        return refused(400, "no data provided")
    secret = secrets.get(key) or Secret()
    cas = (body.get("options") or {}).get("cas")
    if secret.cas_required and cas is None:
        return refused(400, "check-and-set parameter required for this call")
    if cas is not None and cas != secret.current:
        return refused(400, "check-and-set parameter did not match the current version")
    secrets[key] = secret
    return answered(secret.write(body["data"]))


def change(secret, what, body):
    numbers = [int(number) for number in body.get("versions") or []]
    if not numbers:
        return refused(400, "no version number provided")
    if secret is None:
        return nothing()
    for version in (secret.versions[number] for number in numbers if number in secret.versions):
        match what:
            case "delete" if not version.destroyed:
                version.deleted = now()
            case "undelete" if not version.destroyed:
                version.deleted = ""
            case "destroy":
                version.destroyed, version.data = True, None
    return DONE


def names(secrets, key):
    prefix = key.rstrip("/") + "/"
    found = set()
    for other in secrets:
        if other.startswith(prefix):
            first, slash, _ = other.removeprefix(prefix).partition("/")
            found.add(first + slash)
    return answered({"keys": sorted(found)}) if found else nothing()


def metadata(secret):
    if secret is None:
        return nothing()
    versions = {str(number): version.shown() for number, version in secret.versions.items()}
    updated = max((version.created for version in secret.versions.values()), default=secret.created)
    return answered({
        "cas_required": secret.cas_required, "created_time": secret.created, "current_version": secret.current,
        "custom_metadata": secret.custom, "delete_version_after": "0s", "max_versions": 0,
        "oldest_version": min(secret.versions, default=0) if secret.current > VERSIONS_MAX else 0,
        "updated_time": updated, "versions": versions,
    })  # fmt: skip
