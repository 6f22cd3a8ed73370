"""Compile flow files and say what is in them: runs as a process of its own, with the standard library only.

Owns: the syntax check, the search for ``handler``, and finding the inline-metadata block. The daemon never compiles
other people's files itself: a nest of 10,000 brackets can take an interpreter down, and then it is this one.
Started by ``check``, isolated and without ``site``; questions and answers as ``examination`` says, flushed, so that the
first file without an answer is the one that did it. Nothing in a file is ever executed.

Somebody waits for this at each push, so it imports only what is in the interpreter: ``ast``, ``json``, ``re`` and
``signal``, which bring ``enum`` and ``collections``, would take three times as long as all that is done here.
"""

from __future__ import annotations

import _ast as ast
import gc
import resource
import sys
import warnings

_MEMORY_BYTES_MAX = 1024 * 1024 * 1024
_SECONDS_PER_FILE = 10
#: A block is a dozen lines; a daemon that parses TOML of any size could be kept busy.
BLOCK_BYTES_MAX = 64 * 1024

_BLOCK_START = "# /// script"
_BLOCK_END = "# ///"
#: What may not stand in a JSON string as it is, with what stands for it: https://datatracker.ietf.org/doc/html/rfc8259#section-7
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x20), ord('"'), ord("\\"))}


def find_block(text: str) -> tuple[str, int, str]:
    """Return the TOML of the inline-metadata block, the number of its first line, and what is wrong with it.

    Form: https://packaging.python.org/en/latest/specifications/inline-script-metadata/"""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    starts = [number for number, line in enumerate(lines) if line.rstrip(" \t") == _BLOCK_START]
    if not starts:
        return "", 0, ""
    if len(starts) > 1:
        return "", starts[1] + 1, "there are two `# /// script` blocks; a flow has one"
    content = []
    ends = 0
    for line in lines[starts[0] + 1 :]:
        if not (line == "#" or line.startswith("# ")):
            break
        content.append(line[2:])
        if line.rstrip(" \t") == _BLOCK_END:
            ends = len(content)
    if not ends:
        return "", starts[0] + 1, "the `# /// script` block has no end: close it with a line `# ///`"
    block = "\n".join(content[: ends - 1])
    if len(block.encode("utf-8", "replace")) > BLOCK_BYTES_MAX:
        return "", starts[0] + 1, f"the metadata block is larger than {BLOCK_BYTES_MAX:,} bytes"
    return block, starts[0] + 2, ""


def examine(content: bytes) -> dict[str, str | int]:
    """Return what ``check.Findings`` wants to know about a file."""
    try:
        parsed = compile(content, "flow", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        assert isinstance(parsed, ast.Module)
        compile(parsed, "flow", "exec", dont_inherit=True)
    except SyntaxError as error:
        return {"problem": f"syntax error: {error.msg}", "line": error.lineno or 1}
    except (ValueError, RecursionError, MemoryError) as error:
        return {"problem": f"cannot be compiled: {error or type(error).__name__}", "line": 1}
    handler = _handler(parsed.body)
    if handler is None:
        return {}
    block, line, problem = find_block(_text(content))
    findings: dict[str, str | int] = {"handler": True, "block": block, "block_line": line}
    if problem:
        return findings | {"problem": problem, "line": line}
    return findings | {"problem": _handler_problem(handler), "line": handler.lineno}


def _handler(body: list[ast.stmt]) -> ast.stmt | None:
    """Return the last top-level statement that binds the name ``handler``."""
    found = None
    for statement in body:
        if _binds_handler(statement):
            found = statement
        for inner in _blocks(statement):
            found = _handler(inner) or found
    return found


def _blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """Return the blocks of a compound statement whose names are still top-level names."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return []
    blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    for name in ("handlers", "cases"):
        blocks += [part.body for part in getattr(statement, name, [])]
    return blocks


def _binds_handler(statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return statement.name == "handler"
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return any((alias.asname or alias.name) == "handler" for alias in statement.names)
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = [*statement.targets]
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    while targets:
        target = targets.pop()
        if isinstance(target, ast.Name) and target.id == "handler":
            return True
        if isinstance(target, (ast.Tuple, ast.List)):
            targets += target.elts
        elif isinstance(target, ast.Starred):
            targets.append(target.value)
    return False


def _handler_problem(handler: ast.stmt) -> str:
    """Return why this ``handler`` cannot be called as flows are, or nothing. Only a plain ``def`` tells its arity."""
    if isinstance(handler, ast.AsyncFunctionDef):
        return (
            "handler is `async def`: write `def handler(system, this)`, without `await`. Flows are plain functions: "
            "each call waits for its end, and children started with wait=False run at the same time"
        )
    if not isinstance(handler, ast.FunctionDef) or handler.decorator_list:
        return ""
    arguments = handler.args
    most = len(arguments.posonlyargs) + len(arguments.args)
    least = most - len(arguments.defaults)
    named = [
        arg.arg for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
    ]
    if named:
        return f"handler requires the keyword argument {named[0]!r}; it is called as handler(system, this, inputs)"
    if least > 3 or (most < 2 and arguments.vararg is None):
        return (
            f"handler takes {most} arguments; write `def handler(system, this)` or `def handler(system, this, inputs)`"
        )
    return ""


def _text(content: bytes) -> str:
    """Return a source as text: in UTF-8, unless one of its first two lines says something else (PEP 263)."""
    encoding = "utf-8-sig"
    if b"coding" in b"".join(content.split(b"\n", 2)[:2]):
        import io
        import tokenize

        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding, "replace")


def _json(value: str | int) -> str:
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPED)}"'
    return str(value).lower()


def _allow(seconds: int) -> None:
    """Let this process compute for so long from now; then it is ended. A busy machine is nobody's fault."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def main() -> None:
    """Answer for every file on standard input."""
    warnings.simplefilter("ignore")  # an odd escape in a flow is its author's business
    gc.disable()  # syntax trees have no cycles, and looking for some costs a tenth of the time
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    files, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := files.readline():
        content = files.read(int(header))
        _allow(_SECONDS_PER_FILE)
        found = ", ".join(f'"{name}": {_json(value)}' for name, value in examine(content).items())
        answers.write(f"{{{found}}}\n".encode("utf-8", "replace"))
        answers.flush()
