"""What a REST task asks for: its inputs, and the address, headers and body that follow from them.

Nothing here touches the network; ``rest`` sends what this module describes. It decides which combinations of inputs
make sense, joins ``base_path`` and ``path`` to the address, and knows which of the inputs are secrets, so that no
message repeats one.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import yarl

from . import stored_files, tls
from .definition import Inputs, invalid, missing

TASK = "REST"
#: Methods that promise to change nothing when they are sent again (RFC 9110, 9.2.2).
RETRYABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
#: Methods that promise to change nothing at all (9.2.1): safe to repeat without knowing what became of the first.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
BODIES = ("json", "data", "text", "urlencoded", "multipart")

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_HEADER = re.compile(r"auth|cookie|token|secret|passw|api[-_]?key|session|signature|credential", re.IGNORECASE)
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Status = Annotated[int, msgspec.Meta(ge=100, le=599)]


def _about(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


class RestInputs(Inputs):
    """The inputs of REST. Give ``url``, or ``hostname`` and what else makes up the address."""

    url: Annotated[str | None, _about("The address; wins over scheme, hostname and port.")] = None
    scheme: Annotated[str, _about("http or https. Default: https.")] = "https"
    hostname: Annotated[str | None, _about("The host to call, when there is no url.")] = None
    port: Annotated[_Port | None, _about("Default: 443 for https, 80 for http.")] = None
    base_path: Annotated[str | None, _about("First part of the path: /base_path/path.")] = None
    path: Annotated[str | None, _about("Second part of the path; it is added to url as well.")] = None
    method: Annotated[str, _about("The HTTP method, in any case. Default: get.")] = "get"
    params: Annotated[dict[str, Any] | None, _about("Query parameters; a list repeats its name.")] = None
    json: Annotated[Any, _about("A body that is sent as JSON.")] = None
    data: Annotated[
        Any, _about("A body: an object or list is sent as JSON, a text as it is, headrace:<path> is that file.")
    ] = None
    text: Annotated[str | None, _about("A body that is sent as plain text in UTF-8.")] = None
    urlencoded: Annotated[dict[str, Any] | None, _about("A body that is sent like a web form.")] = None
    multipart: Annotated[
        dict[str, Any] | list[dict[str, Any]] | None,
        _about(
            "A body of parts: {name: value}, or a list of {name, value, filename, content_type}; "
            "the value headrace:<path> is that file."
        ),
    ] = None
    headers: Annotated[dict[str, str | int | float | None] | None, _about("Headers of the request.")] = None
    cookies: Annotated[dict[str, str | int | float] | None, _about("Cookies of the request.")] = None
    authentication_method: Annotated[str | None, _about("basic, which is also what username implies.")] = None
    username: Annotated[str | None, _about("The user for basic authentication.")] = None
    password: Annotated[str | None, _about("The password for basic authentication.")] = None
    cacert: Annotated[str | None, _about("Certificates to trust instead of the system's, as PEM text.")] = None
    client_cert: Annotated[str | None, _about("The certificate to show to the server, as PEM text.")] = None
    client_key: Annotated[str | None, _about("Its private key, as PEM text without a passphrase.")] = None
    verify_ssl: Annotated[bool, _about("Whether the server's certificate is checked. Default: true.")] = True
    allow_redirects: Annotated[bool, _about("Whether redirects are followed. Default: true.")] = True
    max_redirects: Annotated[int, msgspec.Meta(ge=0, le=100, description="How many. Default: 10.")] = 10
    connect_timeout: Annotated[
        float, msgspec.Meta(ge=0, description="Seconds to connect, TLS included. Default: 30; 0 is without limit.")
    ] = 30.0
    read_timeout: Annotated[
        float,
        msgspec.Meta(ge=0, description="Seconds without a byte from the server. Default: 300; 0 is without limit."),
    ] = 300.0
    expected_status_code: Annotated[
        _Status | list[_Status], _about("Statuses that count as success. Default: 200, 201, 202, 204.")
    ] = msgspec.field(default_factory=lambda: [200, 201, 202, 204])
    dst: Annotated[
        str | None, _about("headrace:<path> (or just the path) of a file to write the body to; no text, no json then.")
    ] = None

    @property
    def verb(self) -> str:
        """The method in capitals."""
        return self.method.upper()

    @property
    def expected(self) -> tuple[int, ...]:
        """The statuses that count as success."""
        wanted = self.expected_status_code
        return (wanted,) if isinstance(wanted, int) else tuple(wanted)


class Part(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One field of a multipart body."""

    name: str
    value: str | int | float | bool
    filename: str | None = None
    content_type: str | None = None


def check(inputs: RestInputs) -> None:
    """Raise ``InputRefused`` for inputs that cannot make a request."""
    if not _TOKEN.fullmatch(inputs.method):
        raise invalid(TASK, "method", "expected an HTTP method such as get or post")
    if inputs.url is None and not inputs.hostname:
        raise missing(TASK, "url", "the address to call (or 'hostname')")
    address(inputs)
    given = [name for name in BODIES if getattr(inputs, name) is not None]
    if len(given) > 1:
        raise invalid(TASK, given[1], f"there is a body already in '{given[0]}'; give one of {', '.join(BODIES)}")
    if (inputs.authentication_method or "basic").casefold() != "basic":
        raise invalid(TASK, "authentication_method", "expected basic; put a bearer token into 'headers'")
    if inputs.authentication_method is not None and inputs.username is None:
        raise missing(TASK, "username", "the user for basic authentication")
    if inputs.username is not None and ":" in inputs.username:
        raise invalid(TASK, "username", "basic authentication has no way to send a colon in it")
    if inputs.client_key is not None and inputs.client_cert is None:
        raise missing(TASK, "client_cert", "the certificate that 'client_key' belongs to")
    if isinstance(inputs.data, (bool, int, float)):
        raise invalid(TASK, "data", "expected an object, a list or a text")
    if inputs.dst is not None and not stored_files.path(inputs.dst):
        raise invalid(TASK, "dst", "expected headrace:<path>")
    _check_tls(inputs)
    _check_headers(inputs)
    query(inputs.params, "params")
    query(inputs.urlencoded, "urlencoded")
    parts(inputs)


def _check_tls(inputs: RestInputs) -> None:
    if inputs.cacert is None and inputs.client_cert is None:
        return
    try:
        tls.check(cacert=inputs.cacert, client_cert=inputs.client_cert, client_key=inputs.client_key)
    except tls.TlsInputInvalid as problem:
        raise invalid(TASK, problem.name, str(problem)) from None


def _check_headers(inputs: RestInputs) -> None:
    for name, value in (inputs.headers or {}).items():
        if not _TOKEN.fullmatch(name):
            raise invalid(TASK, "headers", "a header's name has characters that are not allowed there")
        if not _one_line(str(value)):
            raise invalid(TASK, "headers", f"the value of {name} contains a control character")
    for name, value in (inputs.cookies or {}).items():
        if not _TOKEN.fullmatch(name):
            raise invalid(TASK, "cookies", "a cookie's name has characters that are not allowed there")
        if not _one_line(str(value)) or ";" in str(value):
            raise invalid(TASK, "cookies", f"the value of {name} contains a semicolon or a control character")


def _one_line(text: str) -> bool:
    return all(character >= " " and character != "\x7f" for character in text)


def address(inputs: RestInputs) -> yarl.URL:
    """Return the address without query parameters of ``params``; raises ``InputRefused`` for one that makes none."""
    if inputs.url is not None:
        name, text = "url", inputs.url.strip()
    else:
        name, text = "hostname", ""
        host = (inputs.hostname or "").strip()
        if not host or any(character in host for character in "/?#@ \\"):
            raise invalid(TASK, "hostname", "expected a host's name or address, without scheme and path")
        if ":" in host and not host.startswith("[") and host.count(":") > 1:
            host = f"[{host}]"
        port = f":{inputs.port}" if inputs.port is not None else ""
        text = f"{inputs.scheme}://{host}{port}"
    try:
        url = yarl.URL(text)
        usable = url.scheme in ("http", "https") and bool(url.raw_host) and url.port is not None and _one_line(text)
    except ValueError:
        usable = False
    if not usable:
        if name == "hostname" and inputs.scheme not in ("http", "https"):
            raise invalid(TASK, "scheme", "expected http or https")
        raise invalid(TASK, name, "expected an address such as https://example.com/path")
    url = url.with_path(url.raw_path, encoded=True, keep_query=True)  # spells the root out: http://host/
    for addition in (inputs.base_path, inputs.path):
        if addition:
            url = _extended(url, addition)
    return url.with_fragment(None)


def _extended(url: yarl.URL, addition: str) -> yarl.URL:
    path, mark, query_string = addition.partition("?")
    joined = url.raw_path.rstrip("/") + "/" + path.lstrip("/") if path else url.raw_path
    longer = url.with_path(joined, encoded="%" in joined, keep_query=True)
    return longer.update_query(query_string) if mark else longer


def query(given: Mapping[str, Any] | None, name: str) -> list[tuple[str, str]]:
    """Return parameters as pairs; a list repeats its name, null is left out. Raises ``InputRefused`` for the rest."""
    pairs: list[tuple[str, str]] = []
    for key, value in (given or {}).items():
        for one in value if isinstance(value, list) else [value]:
            if one is None:
                continue
            if isinstance(one, (dict, list)):
                raise invalid(TASK, name, f"the value of {key} must be a text, a number, true or false, or a list")
            pairs.append((key, _plain(one)))
    return pairs


def _plain(value: str | float | bool) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def parts(inputs: RestInputs) -> list[tuple[Part, str]]:
    """Return the parts of a multipart body, each with its value as text; raises ``InputRefused``."""
    given = inputs.multipart
    if given is None:
        return []
    if isinstance(given, dict):
        given = [{"name": name, **_as_part(value)} for name, value in given.items() if value is not None]
    try:
        decoded = msgspec.convert(given, list[Part])
    except msgspec.ValidationError:
        raise invalid(
            TASK, "multipart", "expected {name: value} or a list of {name, value, filename, content_type}"
        ) from None
    return [(part, _plain(part.value)) for part in decoded]


def _as_part(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"value": value}


def credentials(inputs: RestInputs, url: yarl.URL) -> tuple[str, str] | None:
    """Return user and password for basic authentication, from the inputs or the address."""
    if inputs.username is not None:
        return inputs.username, inputs.password or ""
    return (url.user, url.password or "") if url.user is not None else None


def authorization(pair: tuple[str, str]) -> str:
    """Return the header value of basic authentication (RFC 7617, UTF-8)."""
    return "Basic " + base64.b64encode(":".join(pair).encode()).decode()


def is_secret_header(name: str) -> bool:
    """Return whether a header may carry a credential: it then does not follow a redirect to another host."""
    return _SECRET_HEADER.search(name) is not None


def shown(url: yarl.URL) -> str:
    """Return the address as messages show it: no user, no password, no query."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def secrets(inputs: RestInputs) -> list[str]:
    """Return the texts that no message may repeat, longest first."""
    url = address(inputs)
    found = [inputs.password, url.password, inputs.client_key]
    if (pair := credentials(inputs, url)) is not None:
        found.append(authorization(pair).removeprefix("Basic "))
    for name, value in (inputs.headers or {}).items():
        if is_secret_header(name):
            text = str(value)
            found += [text, text.partition(" ")[2], _basic_password(text)]
    found += [str(value) for value in (inputs.cookies or {}).values()]
    found += [value for key, value in [*url.query.items(), *query(inputs.params, "params")] if is_secret_header(key)]
    spelled = {form for text in found if text for form in (text, urllib.parse.quote(text, safe=""))}
    # Very short values would blank out half of every message and protect nothing.
    return sorted((text for text in spelled if len(text) >= 4), key=len, reverse=True)


def _basic_password(value: str) -> str:
    scheme, _, encoded = value.partition(" ")
    if scheme.casefold() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode(errors="replace").partition(":")[2]
    except binascii.Error:
        return ""
