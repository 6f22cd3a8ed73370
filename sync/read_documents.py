"""Read YAML documents and give them back as JSON: runs as a process of its own, never in the daemon.

Owns: what of YAML is heard (one document, plain values, aliases and merge keys within limits) and where a document is
wrong. Refuses: tags, keys that stand twice, nesting without end, aliases that swell, and what JSON has no form for.
YAML is other people's input, and a document of a hundred bytes can stand for gigabytes; then it is this process that
ends. Started by ``documents`` with PyYAML as its only library; questions and answers as ``examination`` says.
"""

from __future__ import annotations

import datetime
import json
import math
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import yaml

DEPTH_MAX = 64
#: Values and characters that a document stands for, aliases written out. Without aliases none comes near.
EXPANDED_MAX = 4 * 1024 * 1024
_MEMORY_BYTES_MAX = 1024 * 1024 * 1024
_SECONDS_PER_FILE = 10

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD = "tag:yaml.org,2002:"
_MERGE = _STANDARD + "merge"
_SCALARS = yaml.constructor.SafeConstructor()


class Refused(Exception):
    """Why a document cannot be used, and in which line."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def read(content: bytes) -> dict[str, Any]:
    """Return what ``documents.Document`` wants to know: the value and the lines of its keys, or the problem."""
    try:
        node = _node(_decoded(content))
        if node is None:
            return {"value": None}
        value = _Walk().value(node, 1)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate or a number without end shows here
    except Refused as refused:
        return {"problem": refused.reason, "line": refused.line}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        return {"problem": f"not YAML: {said}", "line": mark.line + 1 if mark else 1}
    except yaml.YAMLError as error:
        return {"problem": f"not YAML: {str(error).splitlines()[0]}", "line": 1}
    except (ValueError, RecursionError, MemoryError) as error:
        return {"problem": f"cannot be read: {str(error) or type(error).__name__}", "line": 1}
    return {"value": value, "lines": _lines(node)}


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("not UTF-8", content.count(b"\n", 0, error.start) + 1) from None


def _node(text: str) -> yaml.Node | None:
    """Return the document's root; aliases are still references to nodes, so nothing has swollen yet."""
    loader = _LOADER(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    except yaml.composer.ComposerError as error:
        if error.context and "single document" in error.context and error.problem_mark:
            line = error.problem_mark.line + 1
            raise Refused("holds several documents; keep one, without a `---` after it", line) from None
        raise
    finally:
        loader.dispose()


def _lines(node: yaml.Node) -> dict[str, int]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: _line(key) for key, _ in node.value if isinstance(key, yaml.ScalarNode)}


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Walk:
    """From nodes to values that JSON can hold, with a budget."""

    def __init__(self) -> None:
        self._left = EXPANDED_MAX

    def value(self, node: yaml.Node, depth: int) -> Any:
        """Return what ``node`` stands for."""
        if depth > DEPTH_MAX:
            raise Refused(f"nested more than {DEPTH_MAX} deep", _line(node))
        self._left -= 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        if self._left < 0:
            raise Refused("its aliases stand for too much: write less of it by reference", _line(node))
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == _STANDARD + "seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == _STANDARD + "map":
            return self._mapping(node, depth)
        raise _foreign(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        """Return a mapping's keys and values; what is merged in comes first and gives way."""
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for source in _merged(value_node):
                    merged = self.value(source, depth + 1) | merged
                continue
            key = _key(key_node)
            if key in own:
                raise Refused(f"the key {key!r} stands in line {lines[key]} already", _line(key_node))
            lines[key] = _line(key_node)
            own[key] = self.value(value_node, depth + 1)
        return merged | own


def _merged(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Give the mappings that ``<<: …`` names."""
    for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(source, yaml.MappingNode):
            raise Refused("`<<` takes a mapping or a list of them", _line(node))
        yield source


def _key(node: yaml.Node) -> str:
    """Return a key as it is written: keys are texts in JSON, so ``on`` and ``8080`` mean just that."""
    if not isinstance(node, yaml.ScalarNode):
        raise Refused("a list or a mapping cannot be a key", _line(node))
    if node.tag.removeprefix(_STANDARD) not in _READERS:
        raise _foreign(node)
    return str(node.value)


def _scalar(node: yaml.ScalarNode) -> Any:
    reader = _READERS.get(node.tag.removeprefix(_STANDARD))
    if reader is None:
        raise _foreign(node)
    try:
        return reader(node)
    except (ValueError, KeyError) as error:
        raise Refused(f"{node.value[:60]!r} cannot be read: {error}", _line(node)) from None


def _foreign(node: yaml.Node) -> Refused:
    return Refused(f"the tag {node.tag.replace(_STANDARD, '!!')[:80]} is not allowed: write plain values", _line(node))


def _number(node: yaml.ScalarNode) -> float:
    number = float(_SCALARS.construct_yaml_float(node))
    if not math.isfinite(number):
        raise Refused(f"{node.value} is not a number that JSON knows", _line(node))
    return number


def _time(node: yaml.ScalarNode) -> str:
    moment: datetime.date = _SCALARS.construct_yaml_timestamp(node)
    return moment.isoformat()


def _written(node: yaml.ScalarNode) -> str:
    return str(node.value)


_READERS: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    "str": _written,
    "value": _written,  # a lone "="
    "merge": _written,  # "<<" where no key stands
    "null": lambda _: None,
    "bool": _SCALARS.construct_yaml_bool,
    "int": _SCALARS.construct_yaml_int,
    "float": _number,
    "timestamp": _time,
}


def main() -> None:
    """Answer for every file on standard input."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    files, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := files.readline():
        content = files.read(int(header))
        signal.alarm(_SECONDS_PER_FILE)  # its default action ends this process
        answer = json.dumps(read(content), ensure_ascii=False).encode() + b"\n"
        signal.alarm(0)
        answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    main()
