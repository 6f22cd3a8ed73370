"""S3: objects in buckets of AWS and of everything that speaks its protocol.

Small contents stand in inputs and outputs; files of the store go in and out whole, those that are fetched piece by
piece.
"""

from __future__ import annotations

import base64
import binascii
import functools
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports
from . import aws_calls as calls
from . import definition as definitions
from . import host, http, stored_files
from .definition import invalid, missing
from .host import about

TASK = "S3"
_PRESIGNED_S = 3600
Command = Literal["get", "put", "delete", "head", "list"]


class S3Inputs(calls.AwsAccess, kw_only=True):
    """The inputs of S3."""

    command: Annotated[Command, about("get: its content; head: about it; list: those of the bucket. Default: get.")] = (
        "get"
    )
    bucket: Annotated[str, about("The bucket.")]
    path: Annotated[str | None, about("The object's name in the bucket, which S3 calls its key.")] = None
    src: Annotated[str | None, about("For put: headrace:<path> of the file to send.")] = None
    text: Annotated[str | None, about("For put: the content as text.")] = None
    content: Annotated[str | None, about("For put: the content in base64.")] = None
    content_type: Annotated[str | None, about("For put: what the content is, such as text/plain.")] = None
    metadata: Annotated[dict[str, str] | None, about("For put: names and values that are kept with the object.")] = None
    dst: Annotated[str | None, about("For get: headrace:<path> of a file to write, instead of returning it.")] = None
    prefix: Annotated[str, about("For list: what the names begin with. Default: nothing.")] = ""
    delimiter: Annotated[
        str | None, about("For list: names that hold it after the prefix are told as one folder, mostly /.")
    ] = None
    max_objects: Annotated[
        int, msgspec.Meta(ge=1, le=1_000_000, description="For list: more than that are a failure. Default: 10000.")
    ] = 10_000


class S3Output(msgspec.Struct, kw_only=True):
    """The output of S3."""

    text: str | None = None  #: the content, where it is text in UTF-8
    content: str | None = None  #: the content in base64, where it is not
    size: int | None = None  #: how many bytes
    etag: str | None = None  #: what S3 calls this version of the content
    content_type: str | None = None
    last_modified: Any = None
    metadata: dict[str, str] | None = None
    objects: Any = msgspec.UNSET  #: with list: path, size, etag and last_modified of each
    folders: Any = msgspec.UNSET  #: with list and a delimiter


def _check(inputs: S3Inputs) -> None:
    calls.check(TASK, inputs)
    if not inputs.path and inputs.command != "list":
        raise missing(TASK, "path", "the object's name in the bucket")
    given = [name for name in ("src", "text", "content") if getattr(inputs, name) is not None]
    if inputs.command == "put" and not given:
        raise missing(TASK, "src", "the content: headrace:<path> (or 'text' or 'content')")
    if len(given) > 1:
        raise invalid(TASK, given[1], f"there is a content already in '{given[0]}'; give one of them")
    if given and inputs.command != "put":
        raise invalid(TASK, given[0], f"{inputs.command} sends nothing")
    for name in ("src", "dst"):
        value = getattr(inputs, name)
        if value is not None and not (stored_files.is_named(value) and stored_files.path(value)):
            raise invalid(TASK, name, "expected headrace:<path>")
    try:
        base64.b64decode(inputs.content or "", validate=True)
    except binascii.Error:
        raise invalid(TASK, "content", "expected base64") from None


async def _content(inputs: S3Inputs, context: ports.TaskContext) -> bytes:
    if inputs.src is not None:
        return await stored_files.read(context, inputs.src)
    return inputs.text.encode() if inputs.text is not None else base64.b64decode(inputs.content or "")


class _Session:
    """One attempt."""

    def __init__(self, clients: calls.Clients, inputs: S3Inputs, context: ports.TaskContext) -> None:
        self._clients = clients
        self._inputs = inputs
        self._context = context

    async def attempt(self) -> S3Output:
        inputs = self._inputs
        caller = await calls.caller(TASK, self._clients, "s3", inputs)
        where = {"Bucket": inputs.bucket, **({"Key": inputs.path} if inputs.command != "list" else {})}
        match inputs.command:
            case "get" if inputs.dst is not None:
                return await self._saved(caller, where, inputs.dst)
            case "get":
                return await caller.call(lambda: _read(caller.client.get_object(**where)))
            case "put":
                body = await _content(inputs, self._context)
                more = {"ContentType": inputs.content_type, "Metadata": inputs.metadata}
                given = {name: value for name, value in more.items() if value is not None}
                answer = await caller.call(lambda: caller.client.put_object(**where, Body=body, **given))
                return S3Output(etag=answer.get("ETag"), size=len(body))
            case "delete":
                await caller.call(lambda: caller.client.delete_object(**where))
                return S3Output()
            case "head":
                return await caller.call(lambda: _about(caller.client.head_object(**where)))
        return await caller.call(lambda: self._listed(caller.client))

    async def _saved(self, caller: calls.Caller, where: dict[str, Any], dst: str) -> S3Output:
        """Write the object to a file piece by piece, which the library cannot."""
        output: S3Output = await caller.call(lambda: _about(caller.client.head_object(**where)))
        url: str = await caller.call(
            lambda: caller.client.generate_presigned_url("get_object", Params=where, ExpiresIn=_PRESIGNED_S)
        )
        limits = await calls.limits(self._inputs)
        async with stored_files.writing(self._context, dst) as sink:
            request = http.Request(method="GET", url=url)
            answer = await http.exchange(self._clients.connections, request, limits, sink)
            if answer.status != 200:
                said = host.quoted(answer.body.decode("utf-8", "replace"))
                raise host.Failed(f"status {answer.status}: {said}", passing=answer.status >= 500)
        return output

    def _listed(self, client: Any) -> S3Output:
        inputs = self._inputs
        objects: list[dict[str, Any]] = []
        folders: list[str] = []
        parameters = {"Bucket": inputs.bucket, "Prefix": inputs.prefix}
        if inputs.delimiter is not None:
            parameters["Delimiter"] = inputs.delimiter
        for page in client.get_paginator("list_objects_v2").paginate(**parameters):
            objects += [
                {"path": one["Key"], "size": one["Size"], "etag": one.get("ETag"), "last_modified": one["LastModified"]}
                for one in page.get("Contents", ())
            ]
            folders += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
            if len(objects) + len(folders) > inputs.max_objects:
                raise host.Failed(f"there are more than {inputs.max_objects:,}: give a prefix, or a larger max_objects")
        return S3Output(objects=objects, folders=folders if inputs.delimiter is not None else msgspec.UNSET)


def _about(answer: dict[str, Any]) -> S3Output:
    return S3Output(
        size=answer.get("ContentLength"),
        etag=answer.get("ETag"),
        content_type=answer.get("ContentType"),
        last_modified=answer.get("LastModified"),
        metadata=answer.get("Metadata"),
    )


def _read(answer: dict[str, Any]) -> S3Output:
    output, body = _about(answer), answer["Body"].read()
    try:
        output.text = body.decode()
    except UnicodeDecodeError:
        output.content = base64.b64encode(body).decode()
    return output


async def _run(
    settings: definitions.Settings, clients: calls.Clients, inputs: S3Inputs, context: ports.TaskContext
) -> S3Output:
    # What is written whole, or deleted, may be so once more: the last one counts anyway.
    shown = f"{inputs.command} in the bucket {inputs.bucket}"
    output: S3Output = await calls.performed(
        shown, _Session(clients, inputs, context).attempt, inputs, context, settings, repeatable=True
    )
    return output


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[S3Inputs]:
    """Return the task type S3."""
    clients = calls.Clients(settings.egress)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Read and write objects in S3 and alike",
        description="One object, or the list of a bucket.",
        inputs=S3Inputs,
        output=S3Output,
        run=functools.partial(_run, settings, clients),
        idempotent=lambda inputs: inputs.command in ("get", "head", "list"),
        check=_check,
        secret_inputs=frozenset({"aws_secret_access_key", "aws_session_token"}),
        input_aliases={"object_key": "path"},
        close=clients.aclose,
    )
