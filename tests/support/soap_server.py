# ruff: noqa: E402 - what spyne lacks has to be there before it
"""A SOAP service made with spyne, for tests: ``python -m tests.support.soap_server PORT PASSWORD``.

Below /secure it wants basic authentication of the user ``app``.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import importlib.abc
import importlib.util
import socketserver
import sys
import wsgiref.simple_server


class _Moves(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what the six that spyne brings cannot find since Python 3.12: with today's six."""

    def find_spec(self, name, path, target=None):
        moved = f"{name}.".startswith("spyne.util.six.moves.")
        return importlib.util.spec_from_loader(name, self, is_package=True) if moved else None

    def create_module(self, spec):
        return importlib.import_module(spec.name.removeprefix("spyne.util."))

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, _Moves())
from spyne import (
    Application,
    Array,
    Boolean,
    ByteArray,
    ComplexModel,
    Date,
    DateTime,
    Decimal,
    Fault,
    Integer,
    ServiceBase,
    Unicode,
    rpc,
)
from spyne.protocol.soap import Soap11
from spyne.server.wsgi import WsgiApplication

SPACE = "urn:tests"


class Item(ComplexModel):
    __namespace__ = SPACE
    name = Unicode(min_occurs=1)
    count = Integer
    price = Decimal
    day = Date
    fresh = Boolean


class Order(ComplexModel):
    __namespace__ = SPACE
    id = Integer
    items = Array(Item)
    content = ByteArray


class Shop(ServiceBase):
    @rpc(Integer(min_occurs=1), Integer(min_occurs=1), _returns=Integer)
    def Add(ctx, a, b):  # noqa: N802, N805 - as services in the wild are written
        return a + b

    @rpc(Order, _returns=Order)
    def Echo(ctx, order):  # noqa: N802, N805
        return order

    @rpc(_returns=Array(Item))
    def Stock(ctx):  # noqa: N802, N805
        day = datetime.date(2026, 2, 3)
        return [Item(name="ü <&>", count=2**70, price=decimal.Decimal("1.10"), day=day, fresh=True), Item(name="x")]

    @rpc(_returns=DateTime)
    def Moment(ctx):  # noqa: N802, N805
        return datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)

    @rpc(Unicode)
    def Fails(ctx, why):  # noqa: N802, N805
        raise Fault("Client.Stock", f"nothing left of {why}", detail={"shelf": "7"})


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


def main(port: int, password: str) -> None:
    shop = WsgiApplication(Application([Shop], SPACE, in_protocol=Soap11(validator="lxml"), out_protocol=Soap11()))
    wanted = "Basic " + base64.b64encode(f"app:{password}".encode()).decode()

    def guarded(environ, start_response):
        if environ["PATH_INFO"].startswith("/secure") and environ.get("HTTP_AUTHORIZATION") != wanted:
            start_response("401 Unauthorized", [("Content-Type", "text/plain"), ("WWW-Authenticate", "Basic")])
            return [b"who are you?"]
        return shop(environ, start_response)

    wsgiref.simple_server.make_server("127.0.0.1", port, guarded, server_class=Server).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
