"""The pages' templates: their environment, the headers every page carries, the style sheet, and refusals for people.

Owns the template engine, with escaping on everywhere and undefined names an error. A page needs no script; its policy
allows those of ``assets`` alone. Templates lie in ``web/`` inside the package and are compiled when first used: a
daemon that nobody looks at pays for none of this. Called by the pages, ``login`` and ``routes``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import shlex
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .. import __version__
from ..engine import errors
from . import access, ansi, answers, assets, principals, wording

if TYPE_CHECKING:
    import jinja2

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Pages relax this to same-origin (layout.html), or browsers would send their forms with "Origin: null".
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_CSS = importlib.resources.files(__package__).joinpath("web/style.css").read_bytes()
_CSS_TAG = hashlib.sha256(_CSS).hexdigest()[:16]

Signals = Callable[[principals.Principal], Awaitable[dict[str, int]]]
#: What the navigation of this request's pages tells, by the address of the page.
_SIGNALS = web.RequestKey("signals", dict[str, int])
#: What ``show_signals`` was given.
_signals: list[Signals] = []


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2  # the marked place: a daemon that nobody looks at goes without

    made = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "web/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "segment": wording.segment,
        "plain": wording.plain,
        "spans": wording.spans,
        "shell": shlex.quote,
        "status": wording.status,
        "moment": wording.moment,
        "effect": wording.effect,
        "ago": wording.ago,
        "duration": wording.duration,
        "lasted": wording.lasted,
        "pretty": wording.pretty,
        "pieces": ansi.pieces,
        "size": wording.size,
    }
    made.globals |= {
        "version": __version__,
        "css": f"/style.css?{_CSS_TAG}",
        "script": assets.SCRIPT,
    }
    return made


def page(request: web.Request, template: str, *, status: int = 200, **shown: Any) -> web.Response:
    """Return a page made of ``template`` and what it shows."""
    shown.setdefault("live", "")
    if request.method not in ("GET", "HEAD"):
        shown["live"] = ""  # what was sent and refused stands at an address that cannot be fetched again
    who = request.get(access.PRINCIPAL)
    shown["signals"] = request.get(_SIGNALS, {})
    shown["may"] = frozenset() if who is None else who.scopes
    shown["is_limited"] = who is not None and who.limited
    text = (
        _environment()
        .get_template(template)
        .render(shown, form_token=request.get(access.FORM_TOKEN, ""), here=request.path, now_s=time.time())
    )
    # Text of flows may hold halves of surrogate pairs, which no encoding takes.
    body = text.encode("utf-8", "replace")
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8", headers=HEADERS)


def fragment(template: str, **shown: Any) -> str:
    """Return a piece of a page, for one that is open already."""
    return _environment().get_template(template).render(shown)


def show_signals(signals: Signals) -> None:
    """Have the navigation of every page show how many things need somebody, by the address of their page."""
    _signals[:] = [signals]


async def look_around(request: web.Request, who: principals.Principal) -> None:
    """Find out what the navigation of the page that is made next tells."""
    for signals in _signals:
        request[_SIGNALS] = await signals(who)


def redirect(location: str) -> web.Response:
    """Send the browser on with a GET."""
    return web.Response(status=303, headers={**HEADERS, "Location": location})


def to_login(request: web.Request) -> web.Response:
    """Send somebody without a session to the login, and back here afterwards."""
    here = str(request.rel_url)
    return redirect("/login" if here == "/" else "/login?" + urllib.parse.urlencode({"next": here}))


def wants_page(request: web.Request) -> bool:
    """Whether a browser asks, for a person."""
    return "text/html" in request.headers.get("Accept", "")


def refusal(request: web.Request, error: errors.HeadraceError, *, status: int | None = None) -> web.Response:
    """Return an error as a page for people and as a problem for everything else."""
    answer = answers.problem(error, status, request.get(answers.REQUEST_ID, ""))
    if not wants_page(request):
        return answer
    shown = page(request, "error.html", status=answer.status, error=error, code=answer.status)
    for name in ("Retry-After", "WWW-Authenticate"):
        if name in answer.headers:
            shown.headers[name] = answer.headers[name]
    return shown


async def style(request: web.Request) -> web.Response:
    """The style sheet; its address changes with it."""
    headers = {**HEADERS, "Cache-Control": "public, max-age=86400", "ETag": f'"{_CSS_TAG}"'}
    if f'"{_CSS_TAG}"' in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=_CSS, content_type="text/css", charset="utf-8", headers=headers)
