"""FILE: copy, move, pack, unpack, check and write files that flows keep: their contents pass through no flow."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import threading
from typing import Annotated, Any, Literal

import msgspec

from ..engine import errors, ports
from . import archives, blocking, host, process, stored_files
from . import definition as definitions

TASK = "FILE"
#: What an archive may hold, before it is packed.
PACKED_BYTES_MAX = 512 * 1024 * 1024
#: What a template may become.
TEXT_BYTES_MAX = 16 * 1024 * 1024
Algorithm = Literal["md5", "sha1", "sha256", "sha384", "sha512", "blake2b"]


class FileInputs(definitions.Inputs, kw_only=True):
    """The inputs of FILE."""

    command: Annotated[
        Literal["copy", "move", "archive", "extract", "checksum", "template"],
        host.about("copy: src to dst; move: src becomes dst; archive: the files of the list src into dst; extract: the "
        "archive src into the folder dst; checksum: of src; template: a Jinja template, filled with values, into dst "
        "or the output."),
    ]  # fmt: skip
    src: Annotated[str | list[str] | None, host.about("headrace:<path>, for archive a list of those.")] = None
    dst: Annotated[str | None, host.about("headrace:<path>; its ending says which archive: .zip, .tar.gz or .tgz.")] = (
        None
    )
    algorithm: Annotated[Algorithm, host.about("How the checksum is made. Default: sha256.")] = "sha256"
    expected: Annotated[str | None, host.about("The checksum there must be, in hexadecimal digits.")] = None
    template: Annotated[str | None, host.about("The template as text, or headrace:<path>.")] = None
    values: Annotated[dict[str, Any] | None, host.about("What the template may use.")] = None
    autoescape: Annotated[bool, host.about("Whether values are escaped for HTML. Default: false.")] = False


class FileOutput(msgspec.Struct, kw_only=True):
    """The output of FILE: ``size`` of what was written, ``checksum``, ``files`` of an extract, ``text``."""

    size: int | msgspec.UnsetType = msgspec.UNSET
    checksum: str | msgspec.UnsetType = msgspec.UNSET
    files: list[str] | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET


_NEEDS = {
    "copy": {"src", "dst"},
    "move": {"src", "dst"},
    "archive": {"src", "dst"},
    "extract": {"src", "dst"},
    "checksum": {"src"},
    "template": {"template"},
}


def _check(inputs: FileInputs) -> None:
    for name in sorted(_NEEDS[inputs.command]):
        if not getattr(inputs, name):
            raise definitions.missing(TASK, name, f"the command {inputs.command} is about it")
    wants_list = inputs.command == "archive"
    if inputs.src is not None and isinstance(inputs.src, list) != wants_list:
        raise definitions.invalid(TASK, "src", "expected a list of files" if wants_list else "expected one file")
    for name, given in (("src", inputs.src), ("dst", inputs.dst)):
        named = given if isinstance(given, list) else [] if given is None else [given]
        if not all(stored_files.is_named(one) for one in named):
            raise definitions.invalid(TASK, name, "expected headrace:<path>")
    form = {"archive": inputs.dst, "extract": inputs.src}.get(inputs.command)
    if isinstance(form, str) and archives.kind(form) is None:
        name = "dst" if inputs.command == "archive" else "src"
        raise definitions.invalid(TASK, name, "expected a name that ends with .zip, .tar.gz or .tgz")


class _Stopped(Exception):
    """The task was cancelled while a thread was at work."""


class _Work:
    """One FILE task under way, but for templates; in its thread."""

    def __init__(self, inputs: FileInputs, context: ports.TaskContext, stop: threading.Event) -> None:
        self._inputs, self._context, self._stop = inputs, context, stop

    def __call__(self) -> FileOutput:
        """Do it; raises ``host.Failed`` and ``TaskFailed``."""
        inputs = self._inputs
        match inputs.command:
            case "copy":
                return self._put(str(inputs.dst), self._read(str(inputs.src)))
            case "move":
                return self._moved(str(inputs.src), str(inputs.dst))
            case "archive":
                return self._put(str(inputs.dst), self._packed(list(inputs.src or ())))
            case "extract":
                return self._extracted(str(inputs.src), str(inputs.dst))
        digest = hashlib.new(inputs.algorithm, usedforsecurity=False)
        content = self._read(str(inputs.src))
        digest.update(content)
        output = FileOutput(size=len(content), checksum=digest.hexdigest())
        if inputs.expected is not None and inputs.expected.strip().lower() != output.checksum:
            raise host.Failed(f"the checksum is {output.checksum}, not the one that is expected", output=output)
        return output

    def _read(self, named: str) -> bytes:
        if self._stop.is_set():
            raise _Stopped
        name = stored_files.path(named)
        try:
            return self._context.files.read(name)
        except errors.HeadraceError as error:
            raise host.Failed(f"cannot read the file '{name}': {error.message}") from None

    def _moved(self, src: str, dst: str) -> FileOutput:
        if self._stop.is_set():
            raise _Stopped
        name = stored_files.path(src)
        try:
            return FileOutput(size=self._context.files.move(name, stored_files.path(dst)))
        except errors.HeadraceError as error:
            raise host.Failed(f"cannot move the file '{name}': {error.message}") from None

    def _put(self, named: str, content: bytes) -> FileOutput:
        if self._stop.is_set():
            raise _Stopped
        stored_files.put(self._context, named, content)
        return FileOutput(size=len(content))

    def _packed(self, named: list[str]) -> bytes:
        paths = [stored_files.path(one) for one in named]
        # What they have in common is not repeated in the archive; two files of one name would be one.
        common = "/".join(_common([one.split("/")[:-1] for one in paths]))
        found, total = [], 0
        for one in paths:
            content = self._read(f"headrace:{one}")
            total += len(content)
            if total > PACKED_BYTES_MAX:
                raise host.Failed(f"the files are larger than {PACKED_BYTES_MAX >> 20} MiB together")
            found.append((one[len(common) + 1 :] if common else one, content))
        return archives.packed(archives.kind(str(self._inputs.dst)) or "zip", found)

    def _extracted(self, src: str, dst: str) -> FileOutput:
        folder = stored_files.path(dst).rstrip("/")
        output = FileOutput(size=0, files=[])
        try:
            # Looked through first: an archive that is no good leaves nothing.
            for write in (False, True):
                for name, content in archives.unpacked(archives.kind(src) or "zip", self._read(src)):
                    if self._stop.is_set():
                        raise _Stopped
                    if write:
                        path = f"headrace:{folder}/{name}" if folder else f"headrace:{name}"
                        output.size = (output.size or 0) + len(content)
                        self._put(path, content)
                        output.files = [*(output.files or ()), path]
        except archives.ArchiveInvalid as problem:
            raise host.Failed(f"cannot take '{stored_files.path(src)}' apart: {problem}") from None
        return output


def _common(folders: list[list[str]]) -> list[str]:
    shared = []
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return shared


async def _rendered(settings: definitions.Settings, inputs: FileInputs, context: ports.TaskContext) -> FileOutput:
    template = inputs.template or ""
    if stored_files.is_named(template):
        template = (await stored_files.read(context, template)).decode("utf-8", "replace")
    given = {"template": template, "values": inputs.values or {}, "autoescape": inputs.autoescape}
    async with settings.folders.opened("template") as folder:
        ended = await process.run(
            [sys.executable, "-m", "headrace.tasks.rendering"],
            folder=folder,
            mark=context.execution_id,
            env=process.environment(folder, {}),
            stdin=json.dumps(given).encode(),
            output_bytes_max=TEXT_BYTES_MAX,
        )
    if ended.status:
        said = host.quoted(ended.stderr.decode(errors="replace").strip().rpartition("\n")[2])
        raise host.Failed(f"the template cannot be filled: {said or 'it takes too much time or memory'}")
    if inputs.dst is None:
        return FileOutput(size=len(ended.stdout), text=ended.stdout.decode())
    await blocking.call(stored_files.put, context, inputs.dst, ended.stdout)
    return FileOutput(size=len(ended.stdout))


async def _attempt(settings: definitions.Settings, inputs: FileInputs, context: ports.TaskContext) -> FileOutput:
    if inputs.command == "template":
        return await _rendered(settings, inputs, context)
    stop = threading.Event()
    return await blocking.alone(_Work(inputs, context, stop), on_cancel=stop.set)


async def _run(settings: definitions.Settings, inputs: FileInputs, context: ports.TaskContext) -> FileOutput:
    attempt = functools.partial(_attempt, settings, inputs, context)
    return await host.performed(f"{TASK} {inputs.command}", attempt, inputs, context, settings, repeatable=True)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[FileInputs]:
    """Return the task type FILE."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Copy, move, pack, unpack, check and write kept files",
        description="Works on the files that flows keep, without their contents passing through a flow.",
        inputs=FileInputs,
        output=FileOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.command != "move",
        check=_check,
    )
