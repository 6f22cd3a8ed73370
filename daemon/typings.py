"""What editors and people learn of ``flow_api``: stubs and a reference page, made from the sources flows run on.

Both are read off the guest's modules with ``ast``, so they cannot say anything else than what runs: signatures,
annotations and docstrings are kept, bodies, constructors and private names are left out, and the modules the guest is
cut into become the one that flows import. ``headrace init`` writes the stubs; ``docs/flow-api.md`` is the page, and a
test holds it to this module.

    python -m headrace.daemon.typings DIR       writes DIR/typings/flow_api/*.pyi
    python -m headrace.daemon.typings --page    prints docs/flow-api.md
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

from ..engine.guest import exceptions, flow_api

_GUEST = Path(flow_api.__file__).parent
#: The guest's modules whose classes flows meet, in an order in which each needs only earlier ones.
_MODULES = ("children", "handles", "records", "files", "messages", "running", "executions", "system")
_KEPT_DUNDERS = {"__enter__", "__exit__"}
#: A class whose methods are shown, under their own name or that of the class flows meet.
_SECTIONS = {
    "System": ("System",),
    "Execution": ("Children", "Execution", "Handle", "Running"),
    "ReturnWhen": ("ReturnWhen",),
    "Record": ("Record", "Handle"),
    "Setting": ("Setting",),
    "Flow": ("Flow",),
    "File": ("File",),
    "Message": ("Message",),
    "Connection": ("Connection",),
    "Webhook": ("Webhook",),
    "Schedule": ("Schedule",),
    "VaultConfig": ("VaultConfig",),
    "Lock": ("Lock",),
    "User": ("User",),
    "Workspace": ("Workspace",),
}
#: What an object of a class is called in signatures, where that is not the class's name.
_RECEIVERS = {"Execution": "this", "VaultConfig": "vault_config"}
_LINE_CHARACTERS_MAX = 96

_STUB_HEAD = '''"""What a flow may use: ``system`` and ``this``. Made for editors and type checkers; do not edit."""

import datetime
import enum
import types
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NoReturn, Self

from . import exceptions as exceptions
'''

_PAGE_HEAD = """# Flow API

Everything a handler can do with `system` and `this`, made from the docstrings of the code that does it. How flows are
written, and why it is so, stands in [flows.md](flows.md); what tasks do in [tasks.md](tasks.md).

`import flow_api` works in every flow: the classes below, for annotations, and the [exceptions](#exceptions). The
examples are the bodies of handlers: `system`, `this`, `inputs` and `flow_api` are there, and a flow called `hello`.

```python
import flow_api


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    this.log('hello', inputs.get('who', 'world'))
    return this.success('said hello')
```
"""


def files() -> dict[str, str]:
    """Return the editor stubs: path below a flows repository → text."""
    names = ", ".join(f"{name} as {name}" for name in exceptions.__all__)
    classes = _classes()
    shown = [classes[name] for name in classes if name in flow_api.__all__]
    stub = ast.unparse(ast.Module(body=[_stub(node) for node in shown], type_ignores=[]))
    head = f"{_STUB_HEAD}from .exceptions import {names}\n\n"
    return {
        "typings/flow_api/__init__.pyi": f"{head}{stub}\n",
        "typings/flow_api/exceptions.pyi": _exceptions_stub(),
    }


def page() -> str:
    """Return the reference page, in Markdown."""
    classes = _classes()
    parts = [_PAGE_HEAD]
    for title, names in _SECTIONS.items():
        receiver = _RECEIVERS.get(title, title.lower())
        parts.append(f"## {title}\n\n{_prose(_doc(classes[title]))}")
        if title == "Execution":
            parts.append(_prose(_doc(classes["Children"])))
        methods = _own_methods([classes[name] for name in names])
        parts += [_described(title, receiver, method) for method in methods]
    parts.append(_exceptions_table())
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def examples() -> list[tuple[str, str]]:
    """Return the name and the code of every example: bodies of handlers."""
    classes = _classes()
    found: list[tuple[str, str]] = []
    for title, names in _SECTIONS.items():
        documented = [(title, _doc(classes[title]))]
        methods = _own_methods([classes[name] for name in names])
        documented += [(f"{title}.{method.name}", _doc(method)) for method in methods]
        found += [(name, code) for name, doc in documented if (code := _split(doc)[1])]
    return found


# -- reading the sources ---------------------------------------------------------------------------


def _classes() -> dict[str, ast.ClassDef]:
    """Return the guest's classes by name, with references between its modules taken away."""
    found: dict[str, ast.ClassDef] = {}
    for module in _MODULES:
        tree = _Flattened().visit(ast.parse((_GUEST / f"{module}.py").read_text(encoding="utf-8")))
        found |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return found


class _Flattened(ast.NodeTransformer):
    """Names as flows see them: one module, and what is generic in the guest made plain."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in _MODULES:
            return self.visit_Name(ast.Name(id=node.attr))
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id == "UNSET":
            return ast.Constant(value=...)
        return ast.Name(id="Execution") if node.id == "_Child" else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
        node.bases = [base for base in bases if not (isinstance(base, ast.Name) and base.id == "Generic")]
        return self.generic_visit(node)


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name in _KEPT_DUNDERS


def _own_methods(classes: list[ast.ClassDef]) -> list[ast.FunctionDef]:
    """Return public methods and properties, the first of each name, in their order."""
    found: dict[str, ast.FunctionDef] = {}
    for node in classes:
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                found.setdefault(member.name, member)
    return list(found.values())


def _doc(node: ast.ClassDef | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _split(doc: str) -> tuple[str, str]:
    """Cut a docstring into its text and its example's code."""
    text, _, example = doc.partition("\nExample:\n")
    return text.strip(), inspect.cleandoc("\n" + example) if example else ""


# -- stubs -----------------------------------------------------------------------------------------


def _stub(node: ast.ClassDef) -> ast.ClassDef:
    """Return a class with public members alone, and nothing in its methods."""
    body: list[ast.stmt] = [ast.Expr(ast.Constant(_doc(node)))] if _doc(node) else []
    for member in node.body:
        match member:
            case ast.FunctionDef(name=name) if _is_public(name):
                body.append(_hollow(member))
            case ast.Assign(targets=[ast.Name(id=name)]) if _is_public(name):
                body.append(member)
            case ast.AnnAssign(target=ast.Name(id=name)) if _is_public(name):
                body.append(ast.AnnAssign(target=member.target, annotation=member.annotation, simple=1))
    return ast.ClassDef(
        name=node.name,
        bases=node.bases,
        keywords=[],
        body=body or [ast.Expr(ast.Constant(...))],
        decorator_list=[],
    )


def _hollow(node: ast.FunctionDef) -> ast.FunctionDef:
    doc: list[ast.stmt] = [ast.Expr(ast.Constant(_doc(node)))] if _doc(node) else []
    return ast.FunctionDef(
        name=node.name,
        args=node.args,
        body=[*doc, ast.Expr(ast.Constant(...))],
        decorator_list=node.decorator_list,
        returns=node.returns,
        lineno=0,
    )


def _exceptions_stub() -> str:
    tree = ast.parse((_GUEST / "exceptions.py").read_text(encoding="utf-8"))
    body: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            body.append(_stub(node))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            body.append(node)
    doc = (ast.get_docstring(tree) or "").partition("\n")[0]
    return f'"""{doc}"""\n\nfrom typing import Any\n\n{ast.unparse(ast.Module(body=body, type_ignores=[]))}\n'


# -- the page --------------------------------------------------------------------------------------


def _described(title: str, receiver: str, method: ast.FunctionDef) -> str:
    called = _property(receiver, method) if method.decorator_list else _signature(receiver, method)
    return f"### {title}.{method.name}\n\n```python\n{called}\n```\n\n{_prose(_doc(method))}"


def _property(receiver: str, method: ast.FunctionDef) -> str:
    assert method.returns is not None
    return f"{receiver}.{method.name}: {ast.unparse(method.returns)}"


def _signature(receiver: str, method: ast.FunctionDef) -> str:
    """Return how a method is called, on several lines if it is long."""
    parameters = _parameters(method.args)
    returns = f" -> {ast.unparse(method.returns)}" if method.returns is not None else ""
    line = f"{receiver}.{method.name}({', '.join(parameters)}){returns}"
    if len(line) <= _LINE_CHARACTERS_MAX:
        return line
    inner = "".join(f"    {parameter},\n" for parameter in parameters)
    return f"{receiver}.{method.name}(\n{inner}){returns}"


def _parameters(arguments: ast.arguments) -> list[str]:
    """Return the parameters but for ``self``, as they are written in Python."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    written = [_parameter(*pair) for pair in zip(positional, [*defaults, *arguments.defaults], strict=True)]
    if arguments.posonlyargs:
        written.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        written.append(f"*{_parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        written.append("*")
    written += [_parameter(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        written.append(f"**{_parameter(arguments.kwarg, None)}")
    return [parameter for parameter in written if parameter != "self"]


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(argument.annotation)}" if argument.annotation is not None else ""
    return f"{argument.arg}{annotation}" if default is None else f"{argument.arg}{annotation} = {ast.unparse(default)}"


def _prose(doc: str) -> str:
    text, code = _split(doc)
    text = text.replace("``", "`")
    return f"{text}\n\n```python\n{code}\n```" if code else text


def _exceptions_table() -> str:
    rows = []
    for name in exceptions.__all__:
        kind = getattr(exceptions, name)
        parent = f"another name of `{kind.__name__}`" if name != kind.__name__ else f"`{kind.__base__.__name__}`"
        meaning = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("``", "`").replace("\n", " ")
        rows.append(f"| `{name}` | {parent} | {meaning} |")
    doc = (inspect.getdoc(exceptions) or "").replace("``", "`")
    return f"## Exceptions\n\n{doc}\n\n| exception | is a | meaning |\n| --- | --- | --- |\n" + "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Print the page, or write the stubs below a folder."""
    match arguments:
        case ["--page"]:
            sys.stdout.write(page())
        case [folder] if not folder.startswith("-"):
            for name, text in files().items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        case _:
            sys.stderr.write("usage: python -m headrace.daemon.typings DIR | --page\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
