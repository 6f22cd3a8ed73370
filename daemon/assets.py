"""The pages' scripts as they were built: what they are called, and serving them.

Their names change with their content, so browsers keep them for good. They are built when the package is made
(``setup.py``) and may be missing: then pages go without, and everything on them works all the same. Called by
``templates`` for the address of the first one, and by ``login`` for the route.
"""

from __future__ import annotations

import importlib.resources
import json

from aiohttp import web

from ..engine import errors

_FOLDER = importlib.resources.files(__package__).joinpath("web/dist")
_KEPT = "public, max-age=31536000, immutable"


def _manifest() -> tuple[str, frozenset[str]]:
    try:
        found = json.loads(_FOLDER.joinpath("manifest.json").read_text())
    except FileNotFoundError:
        return "", frozenset()
    return f"/assets/{found['app']}", frozenset(found["files"])


#: The address of the script that every page loads, empty if none was built; and the names of all there are.
SCRIPT, NAMES = _manifest()


async def serve(request: web.Request) -> web.Response:
    """One script, compressed for whoever takes it so."""
    name = request.match_info["name"]
    if name not in NAMES:
        raise errors.NotFound(f"there is no script {name!r}", hint="reload the page: the daemon has newer ones")
    headers = {"Cache-Control": _KEPT, "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    suffix = ""
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"], suffix = "gzip", ".gz"
    body = _FOLDER.joinpath(name + suffix).read_bytes()  # small, and in the page cache
    return web.Response(body=body, content_type="text/javascript", charset="utf-8", headers=headers)
