"""The verbs for what flows ask people: ``messages`` lists and shows, ``answer`` answers.

An answer is typed as ``KEY=VALUE`` and meant as the form says: a number, a yes or no, one of its choices. On a terminal
without values each field is asked for in turn, and once more what the daemon refused. Called by ``main``.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import click

from ...engine import errors
from ...engine.state import forms
from ..client import JSON, Client
from ..endpoint import Invalid
from . import arguments, completers, options, render

_YES = frozenset({"true", "yes", "on", "1", "y"})
_NO = frozenset({"false", "no", "off", "0", "n"})
_TYPE_STYLES = {"SUCCESS": "green", "WARNING": "yellow", "ERROR": "bold red"}


@click.group(cls=options.Verbs, invoke_without_command=True)
@options.target
@click.option("--all", "everything", is_flag=True, help="Also those that were answered or withdrawn.")
@options.as_json
@click.pass_context
def messages(ctx: click.Context, *, url: str, state: str, everything: bool, as_json: bool) -> None:
    """What flows ask people; `headrace answer` answers."""
    options.narrow(ctx, url, state)
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, url="", state="", everything=everything, as_json=as_json)


@messages.command(name="list")
@options.reaches_daemon
@click.option("--all", "everything", is_flag=True, help="Also those that were answered or withdrawn.")
@options.as_json
def list_(client: Client, *, everything: bool, as_json: bool) -> None:
    """List the messages that wait for an answer, newest first."""
    found = client.messages(pending=not everything)
    if as_json:
        render.json_object({"items": found})
        return
    if not found:
        render.say("there are no messages" if everything else "no message waits for an answer")
        return
    rows = [
        (
            each["id"],
            (each["message_type"], _TYPE_STYLES.get(each["message_type"], "")),
            (each["subject"], "bold"),
            render.moment(each["created_at"]),
            each["status"],
            each["execution_id"] or "",
        )
        for each in found
    ]
    render.table(["ID", "TYPE", "SUBJECT", "CREATED", "STATUS", "EXECUTION"], rows, cut=["SUBJECT"])


@messages.command()
@options.reaches_daemon
@click.argument("message", metavar="ID", shell_complete=completers.messages)
@options.as_json
def show(client: Client, message: str, *, as_json: bool) -> None:
    """Show one message: what it asks, and the answer if there is one.

    ID may be `latest`, or the beginning or the end of an id."""
    found = client.message(_id(client, message, pending=False))
    if as_json:
        render.json_object(found)
        return
    by = f" by {found['answered_by']}" if found["answered_by"] else ""
    render.fields([
        ("message", (found["id"], "bold")),
        ("subject", found["subject"]),
        ("type", found["message_type"]),
        ("status", found["status"]),
        ("execution", found["execution_id"] or ""),
        ("created", render.exact(found["created_at"])),
        ("answered", render.exact(found["answered_at"]) + by if found["answered_at"] else ""),
    ])  # fmt: skip
    form = _form(found)
    render.heading("Form")
    rows = [
        (
            (element.key, "bold"),
            element.element,
            ("required", "yellow") if element.key in form.required else "",
            "" if element.default is None else render.compact(element.default),
            _asked(element),
        )
        for element in form.elements
    ]
    render.table(["KEY", "ELEMENT", "", "DEFAULT", "ASKS"], rows, wrap=["ASKS"])
    if found["response"] is not None:
        render.heading("Response")
        render.json_object(found["response"])


@click.command()
@options.reaches_daemon
@click.argument("message", metavar="ID", shell_complete=completers.messages)
@click.argument("pairs", metavar="[KEY=VALUE | KEY:=JSON | BUTTON]...", nargs=-1)
@options.as_json
def answer(client: Client, message: str, pairs: tuple[str, ...], *, as_json: bool) -> int:
    """Answer a message. Values are meant as its form says; a button is pressed by naming it.

    Without values on a terminal every field is asked for; passwords are not shown there. ID may be `latest`, or the
    beginning or the end of an id."""
    found = client.message(_id(client, message, pending=True))
    form = _form(found)
    if not pairs and sys.stdin.isatty():
        answered = _ask_until_taken(client, found, form)
    else:
        if not pairs and [element for element in form.elements if element.element not in ("markdown", "submit")]:
            raise click.UsageError(f"no value is given; the form asks for {', '.join(_keys(form))}")
        answered = client.answer(found["id"], _typed(form, pairs))
    if as_json:
        render.json_object(answered)
    else:
        render.say(("answered", "green"), f"  {answered['subject']}")
    return 0


def _id(client: Client, text: str, *, pending: bool) -> str:
    """Return the id that ``text`` means: itself, the ``latest``, or the one beginning or ending so."""
    found = client.messages(pending=pending)
    if text == "latest":
        if not found:
            raise errors.NotFound("no message waits for an answer" if pending else "there are no messages")
        return str(found[0]["id"])
    near = [each["id"] for each in found if each["id"].startswith(text) or each["id"].endswith(text)]
    if text in near or not near:
        return text
    if len(near) > 1:
        raise errors.InvalidRequest(
            f"several messages begin or end with {text!r}: {', '.join(near[:5])}", hint="give more of the id"
        )
    return str(near[0])


def _form(message: JSON) -> forms.Form:
    return forms.read(json.dumps(message["body"]).encode())


def _keys(form: forms.Form) -> list[str]:
    return [element.key for element in form.elements if element.element != "markdown"]


def _asked(element: forms.Element) -> str:
    """Return what an element says to people, on one line."""
    label = "" if element.label == element.key else element.label
    expected = f"({element.expected})" if element.element in ("dropdown", "date", "time", "datetime") else ""
    return "  ".join(part for part in (label, element.description, expected) if part)


# -- answers typed behind the verb ----------------------------------------------------------------------------------


def _typed(form: forms.Form, pairs: tuple[str, ...]) -> JSON:
    """Return the answer that was typed. What the form does not know goes as it is: the daemon says what is wrong."""
    elements = {element.key: element for element in form.elements}
    found: JSON = {}
    for pair in pairs:
        if pair in elements and elements[pair].element == "submit":
            found[pair] = True
            continue
        for key, value in arguments.pairs((pair,)).items():
            meant = isinstance(value, str) and not pair.startswith(f"{key}:=")
            found[key] = _value(elements[key], value) if meant and key in elements else value
    return found


def _value(element: forms.Element, text: str) -> Any:
    """Return what ``text`` means for an element; itself if it does not fit, for the daemon to refuse."""
    if element.choices:
        return next((choice.value for choice in element.choices if text in (_plain(choice.value), choice.label)), text)
    match element.element:
        case "number":
            return _number(text)
        case "toggle" | "submit":
            word = text.strip().lower()
            return True if word in _YES else False if word in _NO else text
    return text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else render.compact(value)


def _number(text: str) -> float | int | str:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


# -- answers asked for on a terminal --------------------------------------------------------------------------------


def _ask_until_taken(client: Client, message: JSON, form: forms.Form) -> JSON:
    while True:
        render.say((message["subject"], "bold"))
        try:
            return client.answer(message["id"], _ask(form))
        except Invalid as refused:
            render.say_error(refused)
            render.say("Once more; Ctrl-C leaves it unanswered.")


def _ask(form: forms.Form) -> JSON:
    """Ask for every element in turn, then for the button if there are several."""
    found: JSON = {}
    for element in form.elements:
        if element.element == "markdown":
            render.say(element.description or element.label)
        elif element.element != "submit":
            value = _ask_one(element, required=element.key in form.required)
            if value is not None:
                found[element.key] = value
    buttons = form.buttons
    if len(buttons) > 1:
        labels = {render.plain(button.label): button.key for button in buttons}
        pressed = click.prompt("Press", type=click.Choice(list(labels)), err=True)
        found[labels[pressed]] = True
    elif buttons:
        found[buttons[0].key] = True
    return found


def _ask_one(element: forms.Element, *, required: bool) -> Any:
    """Return what was typed; None for nothing, so that the form's default counts."""
    if element.description:
        render.say((element.description, "dim"))
    if element.choices:
        numbered = ", ".join(f"{number} {choice.label}" for number, choice in enumerate(element.choices, 1))
        render.say((numbered, "dim"))
    while True:
        text = _prompt(element, required=required)
        if not text:
            return None
        value = _value(element, _numbered(element, text))
        if not isinstance(value, str) or element.element not in ("number", "toggle"):
            return value
        render.say(f"that is not {element.expected}")


def _numbered(element: forms.Element, text: str) -> str:
    """Return the choice whose number was typed, unless that number is itself a choice."""
    choices = [_plain(choice.value) for choice in element.choices]
    is_number = text.isascii() and text.isdecimal() and 1 <= int(text) <= len(choices)
    return choices[int(text) - 1] if is_number and text not in choices else text


def _prompt(element: forms.Element, *, required: bool) -> str:
    secret = element.element == "password"
    shown = "" if element.default is None or secret else f" [{_plain(element.default)}]"
    example = f" (such as {element.example})" if element.example else ""
    mark = "" if required and element.default is None else " (optional)" if element.default is None else ""
    text: str = click.prompt(
        render.plain(f"{element.label}{example}{mark}{shown}"),
        default="",
        show_default=False,
        hide_input=secret,
        err=True,
    )
    return text
