"""What DOCKER is asked, what it answers, and which of it goes together."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from . import archives, stored_files, web_service, workplace
from .definition import invalid, missing
from .host import about

TASK = "DOCKER"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:@-]{0,511}")
#: What each command needs, and what it takes beside.
_NEEDS = {"run": ("image",), "exec": ("container", "args"), "pull": ("image",), "stop": ("container",)}
_NEEDS |= {"list": (), "remove": ("container",), "build": (), "copy": ("container",)}
_COPIES = ("copy_files", "output_files")
_PROGRAM = ("args", "env", "user", "working_dir", "expected_retcode", *_COPIES)
_TAKES = {
    "run": (*_PROGRAM, "entrypoint", "options", "name", "detach", "stdin"),
    "exec": _PROGRAM, "list": ("all", "labels"), "pull": ("username", "password"),
    "stop": ("grace",), "remove": ("force",), "copy": _COPIES,
    "build": ("image", "files", "archive", "copy_files", "dockerfile", "build_args", "options"),
}  # fmt: skip


class DockerInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of DOCKER."""

    url: Annotated[str, about("Where the engine is: https://host:2376, or unix:///run/docker.sock.")]
    command: Annotated[
        Literal["run", "exec", "list", "pull", "build", "copy", "stop", "remove"],
        about("run: a container to its end; exec: a program in one that runs; copy: files into one and out of it; "
        "build: an image; the others as in docker. Default: run."),
    ] = "run"  # fmt: skip
    image: Annotated[
        str | None, about("For run, pull and build: the image. Pull and build take the tag latest if none is named.")
    ] = None
    container: Annotated[str | None, about("For exec, copy, stop and remove: the container's name or id.")] = None
    args: Annotated[
        list[str] | None, about("For run and exec: the program and its arguments. Default for run: the image's.")
    ] = None
    entrypoint: Annotated[list[str] | None, about("For run: what args are given to. Default: the image's.")] = None
    stdin: Annotated[str | None, about("For run: what the program reads. Default: nothing.")] = None
    env: Annotated[dict[str, str] | None, about("For run and exec: variables of its environment. All secret.")] = None
    user: Annotated[str | None, about("For run and exec: the user in the container.")] = None
    working_dir: Annotated[str | None, about("For run and exec: the folder to begin in.")] = None
    copy_files: Annotated[
        list[workplace.Copied] | None,
        about("Files to put there before: [{src: headrace:<path>, dst: absolute path in the container}]; "
        "for build, dst is a path in its folder."),
    ] = None  # fmt: skip
    output_files: Annotated[
        list[workplace.Copied] | None,
        about("For run, exec and copy: files to keep afterwards: [{src: absolute path in the container, "
        "dst: headrace:<path>}]."),
    ] = None  # fmt: skip
    files: Annotated[
        dict[str, str] | None, about("For build: texts of the folder it is made of, {path in the folder: text}.")
    ] = None
    archive: Annotated[
        str | None, about("For build: headrace:<path> of a .tar.gz, .tgz or .zip with files of that folder.")
    ] = None
    dockerfile: Annotated[
        str | None, about("For build: the path of the file that says how, in the folder. Default: Dockerfile.")
    ] = None
    build_args: Annotated[dict[str, str] | None, about("For build: values of its ARGs. All secret.")] = None
    options: Annotated[
        dict[str, Any] | None,
        about("More of what the API takes: for run to create a container, such as HostConfig; for build as its query, "
        "such as {nocache: true}."),
    ] = None  # fmt: skip
    name: Annotated[str | None, about("For run: the container's name. Default: one made of the execution's id.")] = None
    detach: Annotated[bool | None, about("For run: leave it running, and do not wait. Default: false.")] = None
    expected_retcode: Annotated[
        int | list[int] | None, about("For run and exec: statuses that count as success. Default: 0.")
    ] = None
    all: Annotated[bool | None, about("For list: also those that do not run. Default: false.")] = None
    labels: Annotated[list[str] | None, about("For list: only with these labels, each NAME or NAME=VALUE.")] = None
    username: Annotated[str | None, about("For pull: the user to log in to the registry as.")] = None
    password: Annotated[str | None, about("The user's password.")] = None
    grace: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=3600)] | None,
        about("For stop: seconds the container gets to end by itself. Default: the engine's, mostly 10."),
    ] = None
    force: Annotated[bool | None, about("For remove: also one that runs. Default: false.")] = None

    @property
    def socket(self) -> str | None:
        """The path of the engine's socket, if it is reached by one."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None


class Container(msgspec.Struct, kw_only=True):
    """A container: ``created`` in seconds since 1970."""

    id: str
    name: str
    image: str
    state: str
    status: str
    created: int
    labels: dict[str, str]


class DockerOutput(msgspec.Struct, kw_only=True):
    """The output of DOCKER."""

    id: str | msgspec.UnsetType = msgspec.UNSET  #: with run that of the container, with build that of the image
    retcode: int | msgspec.UnsetType = msgspec.UNSET  #: with run and exec
    stdout: str | msgspec.UnsetType = msgspec.UNSET
    stderr: str | msgspec.UnsetType = msgspec.UNSET
    report: str | msgspec.UnsetType = msgspec.UNSET  #: with build
    containers: list[Container] | msgspec.UnsetType = msgspec.UNSET  #: with list


def check(inputs: DockerInputs) -> None:
    """Raise ``InputRefused`` for inputs that do not go together."""
    if inputs.socket is None:
        web_service.check(TASK, inputs, inputs.url)
    elif not inputs.socket.startswith("/"):
        raise invalid(TASK, "url", "expected unix:// and the absolute path of a socket")
    used = {*_NEEDS[inputs.command], *_TAKES[inputs.command]}
    for name in _NEEDS[inputs.command]:
        if not getattr(inputs, name):
            raise missing(TASK, name, f"the command {inputs.command} needs it")
    for name in sorted({one for names in (*_NEEDS.values(), *_TAKES.values()) for one in names} - used):
        if getattr(inputs, name) is not None:
            raise invalid(TASK, name, f"the command {inputs.command} does not use it")
    for name in ("container", "name"):
        if not NAME.fullmatch(getattr(inputs, name) or "x"):
            raise invalid(TASK, name, "expected the name or id of a container")
    if not _IMAGE.fullmatch(inputs.image or "x"):
        raise invalid(TASK, "image", "expected the name of an image")
    for name, value in (inputs.env or {}).items():
        if not name or "=" in name or "\0" in name + value:
            raise invalid(TASK, "env", "expected names and values of variables")
    if (inputs.username is None) != (inputs.password is None):
        raise missing(TASK, "password" if inputs.password is None else "username", "a login has both")
    for name in ("expected_retcode", "stdin", "output_files") if inputs.detach else ():
        if getattr(inputs, name) is not None:
            raise invalid(TASK, name, "nobody waits for it with 'detach'")
    if inputs.command == "build":
        _check_build(inputs)
    else:
        _check_copies(inputs)


def _check_build(inputs: DockerInputs) -> None:
    if not (inputs.files or inputs.archive or inputs.copy_files):
        raise missing(TASK, "files", "what the image is made of, unless archive or copy_files bring it")
    if inputs.archive is not None:
        if not stored_files.is_named(inputs.archive):
            raise invalid(TASK, "archive", "expected headrace:<path>")
        if archives.kind(inputs.archive) is None:
            raise invalid(TASK, "archive", "expected a name that ends in .tar.gz, .tgz or .zip")
    if not all(workplace.is_inside(one) for one in inputs.files or ()):
        raise invalid(TASK, "files", "expected paths inside of the folder")
    if inputs.dockerfile is not None and not workplace.is_inside(inputs.dockerfile):
        raise invalid(TASK, "dockerfile", "expected a path inside of the folder")
    workplace.check(TASK, inputs.copy_files, None)


def _check_copies(inputs: DockerInputs) -> None:
    for name, kept, inside in (("copy_files", "src", "dst"), ("output_files", "dst", "src")):
        for one in getattr(inputs, name) or ():
            if not stored_files.is_named(getattr(one, kept)):
                raise invalid(TASK, name, f"expected headrace:<path> as '{kept}'")
            path = getattr(one, inside)
            if not path.startswith("/") or not workplace.is_inside(path.lstrip("/")):
                raise invalid(TASK, name, f"expected an absolute path in the container as '{inside}'")
    if inputs.command == "copy" and not (inputs.copy_files or inputs.output_files):
        raise missing(TASK, "copy_files", "what is to be copied, or output_files")
