"""The verbs ``webhooks sign`` and ``webhooks test``: deliveries as their senders make them. Called by ``records``.

The daemon shows nobody the secret of a webhook, so it is given here: in a file, or in an environment variable.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

import click

from .. import signatures
from ..client import Client
from . import arguments, completers, options, render

SECRET_VARIABLE = "HEADRACE_WEBHOOK_SECRET"  # noqa: S105 - its name
R = TypeVar("R")


def _takes_delivery(function: Callable[..., R]) -> Callable[..., R]:
    """Add what a delivery is made of."""
    secret = click.option("--secret-file", "file", metavar="FILE", help=f"Where the secret is; else {SECRET_VARIABLE}.")
    body = click.option("--body", default="{}", metavar="TEXT|@FILE|-", help="The body; {} unless said.")
    id_ = click.option("--id", "id_", default="", help="What names the delivery; a new name unless said.")
    return secret(body(id_(function)))


@click.command()
@click.argument("auth", type=click.Choice(["key", *signatures.SCHEMES]))
@_takes_delivery
def sign(auth: str, *, file: str | None, body: str, id_: str) -> None:
    """Print the headers with which a sender that signs as AUTH would send the body now, one a line.

    curl takes them so: headrace webhooks sign github --body @event.json | curl -H @- --data-binary @event.json URL"""
    for name, value in _headers(auth, _body(body), file, id_).items():
        render.line(f"{name}: {value}")


@click.command()
@options.reaches_daemon
@click.argument("name", shell_complete=completers.records["webhooks"])
@_takes_delivery
@click.option("--method", default="POST", help="POST unless said.")
@options.as_json
def test(client: Client, name: str, *, file: str | None, body: str, id_: str, method: str, as_json: bool) -> None:
    """Send a delivery to the webhook NAME as its sender would, and print the id of the execution it made."""
    auth = client.webhook_auth(name)
    content = _body(body)
    headers = {"Content-Type": "application/json"}
    if auth != "none":
        headers |= _headers(auth, content, file, id_)
    answer = client.deliver(name, content, headers, method=method.upper())
    if as_json:
        render.json_object(answer)
    else:
        render.line(answer["id"])
        render.say(f"{name} took the delivery ({auth}); `headrace logs -f {answer['id']}` follows it")


def _body(given: str) -> bytes:
    return arguments.content(given, "--body") if given == "-" or given.startswith("@") else given.encode()


def _headers(auth: str, body: bytes, file: str | None, id_: str) -> dict[str, str]:
    secret = arguments.text(f"@{file}", "--secret-file") if file else os.environ.get(SECRET_VARIABLE, "")
    if not signatures.secrets_of(secret):
        raise click.UsageError(f"there is no secret: give --secret-file, or set {SECRET_VARIABLE}")
    return signatures.signed(auth, body, secret, time.time(), id_ or str(uuid.uuid4()))
