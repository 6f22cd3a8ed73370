"""Services that speak JSON over HTTP: the inputs they share, and a call of one through REST.

So retries, redirects, bounds, the operator's policy and the words of failures are those of REST; a type only says what
it asks for and what the answer means.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ..engine import errors, ports, values
from . import definition as definitions
from . import host, rest, tls
from . import rest_request as request
from .definition import Inputs, invalid
from .host import about


class ServiceInputs(Inputs):
    """Where the service is, and how long we wait for it."""

    cacert: Annotated[str | None, about("Certificates to trust instead of the system's, as PEM text.")] = None
    client_cert: Annotated[str | None, about("The certificate to show to the server, as PEM text.")] = None
    client_key: Annotated[str | None, about("Its private key, as PEM text without a passphrase.")] = None
    verify_ssl: Annotated[bool, about("Whether the server's certificate is checked. Default: true.")] = True
    connect_timeout: host.ConnectTimeout = 30.0
    read_timeout: Annotated[
        float, msgspec.Meta(gt=0, description="Seconds without a byte from the server. Default: 300.")
    ] = 300.0


def check(task: str, inputs: ServiceInputs, url: str, name: str = "url") -> None:
    """Raise ``InputRefused`` for an address that is none, or TLS inputs that do not go together."""
    if not url.startswith(("http://", "https://")):
        raise invalid(task, name, "expected an address with http or https")
    if inputs.client_key is not None and inputs.client_cert is None:
        raise definitions.missing(task, "client_cert", "the certificate that 'client_key' belongs to")
    try:
        tls.check(cacert=inputs.cacert, client_cert=inputs.client_cert, client_key=inputs.client_key)
    except tls.TlsInputInvalid as problem:
        raise invalid(task, problem.name, str(problem)) from None
    try:
        request.address(request.RestInputs(url=url))
    except errors.InputRefused:
        raise invalid(task, name, "expected an address such as https://service.example") from None


class Service(msgspec.Struct, frozen=True):
    """Calls services; one for each type."""

    settings: definitions.Settings
    connections: rest.Connections

    async def call(self, inputs: ServiceInputs, context: ports.TaskContext, url: str, **asked: Any) -> rest.RestOutput:
        """Return the answer; ``asked`` are more inputs of REST. Raises ``TaskFailed``.

        What a service answers is shown as it is, and some repeat what they do not like: so credentials are hidden."""
        for name in ("key", "password", "token"):
            if getattr(inputs, name, None):
                context.hide(getattr(inputs, name))
        made = request.RestInputs(
            url=url,
            cacert=inputs.cacert,
            client_cert=inputs.client_cert,
            client_key=inputs.client_key,
            verify_ssl=inputs.verify_ssl,
            connect_timeout=inputs.connect_timeout,
            read_timeout=inputs.read_timeout,
            retry_backoff=asked.pop("retry_backoff", inputs.retry_backoff),
            **asked,
        )
        return await rest.perform(self.connections, self.settings.pacing, made, context)


def service(settings: definitions.Settings) -> Service:
    """Return what calls services, with connections of its own."""
    return Service(settings, rest.Connections(settings.egress))


def unexpected(task: str, output: rest.RestOutput) -> errors.TaskFailed:
    """Return the failure of an answer that is not what the service says it answers."""
    return errors.TaskFailed(f"the answer is not one of {task}", output=values.encode(output, "the answer"))
