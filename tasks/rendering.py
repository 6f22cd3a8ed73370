"""A template filled with values, in a process of its own: ``python -m headrace.tasks.rendering`` reads both from stdin.

Templates are what flow authors write, and flow code never runs in the daemon: a loop without end ends with the task,
and one that eats memory meets a limit. The sandbox keeps it to the values it was given.
"""

from __future__ import annotations

import json
import resource
import sys

import jinja2
import jinja2.sandbox

MEMORY_BYTES_MAX = 1024 * 1024 * 1024
CPU_SECONDS_MAX = 60


def rendered(template: str, values: dict[str, object], *, autoescape: bool) -> str:
    """Return the text; raises ``jinja2.TemplateError`` and what its expressions raise."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=autoescape, keep_trailing_newline=True
    )
    return environment.from_string(template).render(values)


def main() -> None:
    """Write the text to stdout, or what is wrong to stderr and end with 1."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
    given = json.load(sys.stdin.buffer)
    try:
        text = rendered(given["template"], given["values"], autoescape=given["autoescape"])
    except jinja2.TemplateSyntaxError as error:
        sys.exit(f"line {error.lineno}: {error.message}")
    except (
        jinja2.TemplateError,
        ArithmeticError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        sys.exit(str(error) or type(error).__name__)
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
