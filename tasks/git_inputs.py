"""The inputs of GIT, and which of them go together."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import msgspec

from . import definition as definitions
from . import git_address, git_commit, host_key, stored_files

TASK = "GIT"
#: Commands that change the repository.
WRITING = frozenset({"commit_and_push", "tag"})
#: The inputs that single commands alone use.
_USED_BY = {
    "files": ("commit_and_push",),
    "remove": ("commit_and_push",),
    "new_branch": ("commit_and_push",),
    "tag": ("tag",),
    "message": ("commit_and_push", "tag"),
    "author_name": ("commit_and_push", "tag"),
    "author_email": ("commit_and_push", "tag"),
    "files_path": ("get", "metadata", "clone"),
}


def _about(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


class NewFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A file to commit: its path in the repository, and its content in one of three forms."""

    name: str
    text: str | None = None
    content: str | None = None
    src: str | None = None
    executable: bool | None = None


class GitInputs(definitions.Inputs):
    """The inputs of GIT."""

    repository_url: Annotated[
        str,
        _about("(or url) https://host/path, ssh://user@host/path, user@host:path; file:///path in developer mode"),
    ]
    command: Annotated[
        Literal["get", "metadata", "clone", "ls", "commit_and_push", "tag"],
        _about("get: files and facts of the commit; metadata: the facts; clone: the files into 'files_path'; ls: the "
        "names of the files; commit_and_push: 'files' and 'remove' onto the branch 'ref'; tag: give the commit the "
        "name 'tag'. Default: get."),
    ] = "get"  # fmt: skip
    ref: Annotated[
        str | None,
        _about("A branch, tag or commit. Default: the HEAD of the remote. With commit_and_push the branch, required."),
    ] = None
    username: Annotated[str | None, _about("The user; for ssh when the address names none.")] = None
    password: Annotated[str | None, _about("The password or token, for https.")] = None
    ssh_key: Annotated[str | None, _about("The private key as text, without a passphrase, for ssh.")] = None
    ssh_hostkey: Annotated[
        str | None, _about("The server's host key, 'type key'. Default: what ~/.ssh/known_hosts says.")
    ] = None
    httpCookie: Annotated[str | None, _about("A cookie 'name=value' to send, for https.")] = None  # noqa: N815
    files_path: Annotated[
        str | None, _about("A folder of the store to write the files to, instead of returning them.")
    ] = None
    files: Annotated[
        list[NewFile] | None,
        _about("What to commit: [{name: path, and one of text, content as base64, src: headrace:<path>; executable}]."),
    ] = None
    remove: Annotated[list[str] | None, _about("Paths of files that the commit removes.")] = None
    message: Annotated[
        str | None, _about("Of the commit, required; of the tag, which then has a date and an author of its own.")
    ] = None
    author_name: Annotated[str | None, _about("Who commits or tags. Default: Headrace.")] = None
    author_email: Annotated[str | None, _about("Their address. Default: headrace@localhost.")] = None
    new_branch: Annotated[
        bool, _about("Make the branch, from the HEAD of the remote, when there is none. Default: false.")
    ] = False
    tag: Annotated[str | None, _about("The name of the tag to make.")] = None


def check(inputs: GitInputs) -> None:
    """Raise ``InputRefused`` for inputs that cannot be used, or not together."""
    try:
        address = git_address.parsed(inputs.repository_url)
    except ValueError as problem:
        raise definitions.invalid(TASK, "repository_url", str(problem)) from None
    if inputs.ref is not None and not git_address.is_ref(inputs.ref):
        raise definitions.invalid(TASK, "ref", "expected the name of a branch or tag, or a commit")
    if address.scheme == "ssh" and inputs.ssh_key is None:
        raise definitions.missing(TASK, "ssh_key", "the private key, because the address is one of ssh")
    if address.scheme == "ssh" and inputs.username is not None and not git_address.is_user(inputs.username):
        raise definitions.invalid(TASK, "username", "expected the name of a user of the server")
    if inputs.ssh_hostkey is not None:
        try:
            host_key.parsed(inputs.ssh_hostkey)
        except ValueError as problem:
            raise definitions.invalid(TASK, "ssh_hostkey", str(problem)) from None
    for name in ("username", "password", "httpCookie"):
        value = getattr(inputs, name)
        if value is not None and not all(character >= " " and character != "\x7f" for character in value):
            raise definitions.invalid(TASK, name, "it contains a control character")
    if inputs.ssh_key is not None and "PRIVATE KEY-----" not in inputs.ssh_key:
        raise definitions.invalid(TASK, "ssh_key", "expected a private key, '-----BEGIN … PRIVATE KEY-----'")
    _check_command(inputs)


def _check_command(inputs: GitInputs) -> None:
    for name, commands in _USED_BY.items():
        if getattr(inputs, name) not in (None, False) and inputs.command not in commands:
            raise definitions.invalid(TASK, name, f"the command {inputs.command} does not use it")
    match inputs.command:
        case "clone" if inputs.files_path is None:
            raise definitions.missing(TASK, "files_path", "the folder of the store that the command clone fills")
        case "commit_and_push":
            _check_commit(inputs)
        case "tag" if inputs.tag is None:
            raise definitions.missing(TASK, "tag", "the name of the tag that the command tag makes")
        case "tag" if not git_address.is_ref(inputs.tag or "") or (inputs.tag or "").startswith("refs/"):
            raise definitions.invalid(TASK, "tag", "expected the name of a tag")
    for name in ("author_name", "author_email"):
        value = getattr(inputs, name)
        if value is not None and not git_commit.is_person(value):
            raise definitions.invalid(TASK, name, "expected a text without < and > and control characters")
    if inputs.message is not None and (not inputs.message.strip() or "\0" in inputs.message):
        raise definitions.invalid(TASK, "message", "expected a text")


def _check_commit(inputs: GitInputs) -> None:
    if inputs.ref is None:
        raise definitions.missing(TASK, "ref", "the branch that commit_and_push adds to")
    if inputs.ref == "HEAD" or inputs.ref.startswith("refs/"):
        raise definitions.invalid(TASK, "ref", "expected the name of a branch")
    if inputs.message is None:
        raise definitions.missing(TASK, "message", "the message of the commit")
    if not inputs.files and not inputs.remove:
        raise definitions.missing(TASK, "files", "what to commit, unless 'remove' says what to remove")
    named = [one.name for one in inputs.files or ()]
    for which, names in (("files", named), ("remove", inputs.remove or [])):
        if not all(git_commit.is_name(one) for one in names):
            raise definitions.invalid(TASK, which, "expected paths in the repository, such as docs/page.md")
    if len({*named, *(inputs.remove or ())}) < len(named) + len(inputs.remove or ()):
        raise definitions.invalid(TASK, "files", "a path is named twice")
    for one in inputs.files or ():
        if [one.text, one.content, one.src].count(None) != 2:
            raise definitions.invalid(TASK, "files", "expected one of 'text', 'content' and 'src' for each file")
        if one.src is not None and not stored_files.is_named(one.src):
            raise definitions.invalid(TASK, "files", "expected headrace:<path> as 'src'")
        try:
            base64.b64decode(one.content or "", validate=True)
        except ValueError:
            raise definitions.invalid(TASK, "files", "expected base64 as 'content'") from None
