"""WEBDAV: files on a server that speaks it (RFC 4918), as file shares and clouds do. Requests go through REST."""

from __future__ import annotations

import email.utils
import functools
import urllib.parse
import xml.etree.ElementTree as ElementTree
from typing import Annotated, Any

from ..engine import errors, ports
from . import definition as definitions
from . import host, remote_files, rest, stored_files, web_service

TASK = "WEBDAV"
_ASKED = (
    '<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getlastmodified/></prop>'
    "</propfind>"
)
_DAV = "{DAV:}"


class WebdavInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of WEBDAV."""

    url: Annotated[str, host.about("The address of the folder that paths begin at.")]
    username: Annotated[str | None, host.about("The user for basic authentication.")] = None
    password: Annotated[str | None, host.about("The user's password.")] = None
    command: remote_files.Command = "copy"
    src: remote_files.Src = None
    dst: remote_files.Dst = None
    path: remote_files.Path = None
    new_path: remote_files.NewPath = None


def _check(inputs: WebdavInputs) -> None:
    web_service.check(TASK, inputs, inputs.url)
    remote_files.check(TASK, inputs)
    for name in ("src", "dst", "path", "new_path"):
        value = getattr(inputs, name)
        if value is not None and not stored_files.is_named(value) and ".." in value.split("/"):
            raise definitions.invalid(TASK, name, "expected a path that stays below 'url'")


def _address(inputs: WebdavInputs, path: str) -> str:
    return f"{inputs.url.rstrip('/')}/{urllib.parse.quote(path.strip('/'))}"


class _Visit:
    """One WEBDAV task under way."""

    def __init__(self, service: web_service.Service, inputs: WebdavInputs, context: ports.TaskContext) -> None:
        self._service, self._inputs, self._context = service, inputs, context

    async def perform(self) -> remote_files.FilesOutput:
        """Do what is asked; raises ``TaskFailed`` and ``host.Failed``."""
        inputs, path = self._inputs, self._inputs.path or ""
        match inputs.command:
            case "copy" if stored_files.is_named(inputs.src):
                content = await stored_files.read(self._context, inputs.src or "")
                await self._call("put", inputs.dst or "", [200, 201, 204], data=inputs.src)
                return remote_files.FilesOutput(size=len(content))
            case "copy":
                answer = await self._call("get", inputs.src or "", [200], dst=inputs.dst)
                size = answer.headers.get("content-length", "")
                return remote_files.FilesOutput(size=int(size)) if size.isdecimal() else remote_files.FilesOutput()
            case "list":
                return remote_files.FilesOutput(entries=(await self._looked(path, "1"))[1:])
            case "stat":
                return remote_files.FilesOutput(entry=(await self._looked(path, "0"))[0])
            case "remove":
                await self._call("delete", path, [200, 204])
            case "rename":
                headers = {"Destination": _address(inputs, inputs.new_path or ""), "Overwrite": "F"}
                await self._call("move", path, [201, 204], headers=headers)
            case "mkdir":
                await self._call("mkcol", path, [201])
        return remote_files.FilesOutput()

    async def _call(self, method: str, path: str, expected: list[int], **asked: Any) -> rest.RestOutput:
        inputs = self._inputs
        backoff = inputs.retry_backoff
        if backoff is None and method == "propfind":
            backoff = True  # REST does not know that it only reads
        return await self._service.call(
            inputs, self._context, _address(inputs, path), method=method, username=inputs.username,
            password=inputs.password, expected_status_code=expected, retry_backoff=backoff, **asked,
        )  # fmt: skip

    async def _looked(self, path: str, depth: str) -> list[remote_files.Entry]:
        """Return what the server says of the file or folder, itself first."""
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        answer = await self._call("propfind", path, [207], text=_ASKED, headers=headers)
        found = _entries(str(answer.text or ""))
        here = urllib.parse.unquote(urllib.parse.urlsplit(_address(self._inputs, path)).path).rstrip("/")
        own = [entry for href, entry in found if href.rstrip("/") == here]
        if not own:
            raise host.Failed("the answer says nothing of what was asked about")
        rest_of = sorted((entry for href, entry in found if href.rstrip("/") != here), key=lambda one: one.name)
        return [own[0], *remote_files.bounded(rest_of)]


def _entries(text: str) -> list[tuple[str, remote_files.Entry]]:
    """Return the path and what is known of each thing in a multistatus; raises ``host.Failed``."""
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise host.Failed("the answer declares a document type: it is not read")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - see above
    except ElementTree.ParseError:
        raise host.Failed("the answer is not XML") from None
    found = []
    for one in root.iter(f"{_DAV}response"):
        href = urllib.parse.unquote(urllib.parse.urlsplit((one.findtext(f"{_DAV}href") or "").strip()).path)
        size = (one.findtext(f".//{_DAV}getcontentlength") or "").strip()
        folder = one.find(f".//{_DAV}collection") is not None
        entry = remote_files.Entry(
            name=href.rstrip("/").rpartition("/")[2],
            type="folder" if folder else "file",
            size=int(size) if size.isdecimal() and not folder else None,
            modified=_moment(one.findtext(f".//{_DAV}getlastmodified")),
        )
        found.append((href, entry))
    return found


def _moment(text: str | None) -> int | None:
    try:
        return int(email.utils.parsedate_to_datetime(text or "").timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


async def _run(
    service: web_service.Service, inputs: WebdavInputs, context: ports.TaskContext
) -> remote_files.FilesOutput:
    try:
        return await _Visit(service, inputs, context).perform()
    except host.Failed as failed:
        raise errors.TaskFailed(f"{TASK} {inputs.command}: {failed.words}") from None


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[WebdavInputs]:
    """Return the task type WEBDAV."""
    service = web_service.service(settings)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Copy, list and change files over WebDAV",
        description="Copies one file between the files that flows keep and a server, or lists and changes files there.",
        inputs=WebdavInputs,
        output=remote_files.FilesOutput,
        run=functools.partial(_run, service),
        idempotent=remote_files.is_repeatable,
        check=_check,
        close=service.connections.aclose,
    )
