"""What SSH sends to a machine: one POSIX shell command that puts the script into a file, runs it, and clears away.

The channel's standard input carries the script and then stays open for as long as the task lives. When it ends (the
task was cancelled, timed out, or the daemon died) the machine itself kills the script and everything of its process
group. What the script writes, to either output, is the channel's standard output; standard error carries the output
variables.
"""

from __future__ import annotations

import re
import shlex

#: What runs a script in which ``#OUTPUT_VAR(X)`` can be read.
SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})
#: The first byte of standard error when the script could not be put there.
NOT_PLACED = b"!"
_OUTPUT_VAR = re.compile(r"^([ \t]*)#+[ \t]*OUTPUT_VAR\(([A-Za-z_]\w*)\)[ \t\r]*$", re.MULTILINE | re.ASCII)
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)

# The machine's own user shell starts this with exec; sh is all it takes. 3 is the channel's standard input, 4 its
# standard error. The watcher waits with a builtin, so that killing it leaves no child behind.
_COMMAND = r"""
exec 3<&0 4>&2 2>&1
d=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/headrace-XXXXXXXXXX") && head -c "$2" <&3 >"$d/script" && : >"$d/vars" || {
  printf '!' >&4; test -z "$d" || rm -rf "$d"; exit 255; }
( while read -r line; do :; done <&3; rm -rf "$d"; kill -s KILL 0 ) >/dev/null 2>&1 4>&- &
watcher=$!
HEADRACE_VARS="$d/vars" @ "$d/script" </dev/null 3<&- 4>&-
retcode=$?
kill $watcher
cat "$d/vars" >&4
rm -rf "$d"
exit $retcode
"""


def is_shell(interpreter: str) -> bool:
    """Return whether the interpreter's command line runs a shell; raises ``ValueError`` for unmatched quotes."""
    return any(word.rpartition("/")[2] in SHELLS for word in shlex.split(interpreter)[:2])


def command(interpreter: str, temp_path: str | None, size: int, traceparent: str) -> str:
    """Return the command for a script of ``size`` bytes; raises ``ValueError`` for quotes that do not match."""
    run = shlex.join(shlex.split(interpreter))
    trace = f"TRACEPARENT={shlex.quote(traceparent)} " if traceparent else ""
    body = _COMMAND.replace("@", trace + run)
    return f"exec sh -c {shlex.quote(body)} headrace {shlex.quote(temp_path or '')} {size}"


def variables(script: str, more: list[str]) -> list[str]:
    """Return the names of the output variables, each once."""
    return list(dict.fromkeys([*(match[2] for match in _OUTPUT_VAR.finditer(script)), *more]))


def with_output(script: str, names: list[str]) -> str:
    """Return the shell script that tells its variables: where a line asks for it, and all at the end."""
    if not names:
        return script
    told = _OUTPUT_VAR.sub(lambda match: match[1] + _telling(match[2]), script)
    # The last command's status stays the script's.
    last = "; ".join(_telling(name) for name in names)
    return f"{told}\nheadrace_status=$?; {last}; (exit $headrace_status)\n"


def _telling(name: str) -> str:
    return f'if [ -n "${{{name}+set}}" ]; then printf "%s\\0%s\\0" {name} "${name}" >>"$HEADRACE_VARS"; fi'


def told(said: bytes, names: list[str], encoding: str) -> dict[str, str | None]:
    """Return the last value of each variable; None for one that was never set."""
    parts = said.decode(encoding, "replace").split("\0")
    found: dict[str, str | None] = dict.fromkeys(names)
    found.update((name, value) for name, value in zip(parts[::2], parts[1::2], strict=False) if name in found)
    return found
