"""What PS sends to a machine: PowerShell that takes the script, runs it, and ends with the task.

Over SSH a short command, free of quotes for whatever shell is there, reads the script from its standard input: scripts
stay out of arguments, which everybody on a machine may see. The channel's standard input then stays open for as long as
the task lives; when it ends, PowerShell ends itself.
"""

from __future__ import annotations

import base64
import shlex

#: What the script may rely on, wherever it runs: an error ends it, as ``bash -e`` does, and nothing is in colours.
_PREAMBLE = (
    "$ErrorActionPreference='Stop';$ProgressPreference='SilentlyContinue';"
    "if($PSStyle){$PSStyle.OutputRendering='PlainText'};"
)
#: The script is a block of its own; its warnings and what it says to the host are part of its output.
_INVOKE = "& ([ScriptBlock]::Create($headrace_script)) 3>&1 6>&1 | Out-String -Stream -Width 4096"
_READ = (
    "$headrace_in=[Console]::OpenStandardInput();$headrace_bytes=New-Object byte[] SIZE;$headrace_read=0;"
    "while($headrace_read -lt SIZE){"
    "$headrace_more=$headrace_in.Read($headrace_bytes,$headrace_read,SIZE-$headrace_read);"
    "if($headrace_more -le 0){exit 255};$headrace_read+=$headrace_more};"
    "$headrace_script=(New-Object Text.UTF8Encoding $false).GetString($headrace_bytes);"
    "[Console]::OutputEncoding=New-Object Text.UTF8Encoding $false;"
)
_WATCH = (
    "$headrace_watch=[PowerShell]::Create();"
    "[void]$headrace_watch.AddScript('param($in,$own) while($in.ReadByte() -ge 0){}; Stop-Process -Id $own -Force');"
    "[void]$headrace_watch.AddArgument($headrace_in);[void]$headrace_watch.AddArgument($PID);"
    "[void]$headrace_watch.BeginInvoke();"
)
_CAUGHT = "catch{[Console]::Out.WriteLine(($_|Out-String).TrimEnd());exit 1}"


def command(interpreter: str, traceparent: str, size: int) -> str:
    """Return the command that runs a script of ``size`` bytes in UTF-8, which is sent to its standard input."""
    trace = f"$env:TRACEPARENT='{traceparent}';" if traceparent and "'" not in traceparent else ""
    text = f"{_PREAMBLE}{trace}{_READ.replace('SIZE', str(size))}{_WATCH}try{{{_INVOKE}}}{_CAUGHT};exit 0"
    encoded = base64.b64encode(text.encode("utf-16-le")).decode()
    words = shlex.split(interpreter, posix=False)
    return f"{' '.join(words)} -NoLogo -NoProfile -NonInteractive -OutputFormat Text -EncodedCommand {encoded}"


def wrapped() -> str:
    """Return the PowerShell that runs what its first argument says, for a remote runspace."""
    return f"param($headrace_script) {_PREAMBLE}{_INVOKE}"
