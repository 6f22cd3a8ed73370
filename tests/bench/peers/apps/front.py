"""The four requests of the trials, as a small web application in front of a peer that is a library."""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def application(trivial, children, wait, begin, lifespan=None):
    """Routes for four coroutine functions: the first two end when the work is done, the others when it is accepted."""

    async def _trivial(_request):
        await trivial()
        return PlainTextResponse("DONE")

    async def _children(request):
        await children(int(request.query_params["count"]))
        return PlainTextResponse("DONE")

    async def _wait(request):
        await wait(float(request.query_params["seconds"]))
        return PlainTextResponse("ACCEPTED")

    async def _begin(request):
        await begin(int(request.query_params["number"]), float(request.query_params["seconds"]))
        return PlainTextResponse("ACCEPTED")

    handlers = {"/trivial": _trivial, "/children": _children, "/wait": _wait, "/begin": _begin}
    routes = [Route(path, handler, methods=["POST"]) for path, handler in handlers.items()]
    return Starlette(routes=routes, lifespan=lifespan)


def serve(app):
    """Serve until told to stop, where ``PORT`` says."""
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
