"""The verb ``completion``: what makes a shell complete verbs, options and the daemon's names. Called by ``main``.

click's own scripts, which ask this command for what to offer, but quiet, and in bash with names that hold blanks.
"""

from __future__ import annotations

import click
from click import shell_completion

_VARIABLE = "_HEADRACE_COMPLETE"
#: bash does not quote what it inserts, and `read` must leave backslashes alone. A word that is quoted is left as it is.
_BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' response line kind value word=${COMP_WORDS[COMP_CWORD]}
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete $1 2>/dev/null)
    COMPREPLY=()
    for line in $response; do
        IFS=',' read -r kind value <<< "$line"
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                case $word in
                    [\"\']*) COMPREPLY+=("$value") ;;
                    *) COMPREPLY+=("$(printf %%q "$value")") ;;
                esac ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    Put `eval "$(headrace completion bash)"` into ~/.bashrc (zsh: ~/.zshrc, after compinit), or
    `headrace completion fish | source` into ~/.config/fish/config.fish. A new shell then completes verbs, options, and
    the names of flows, executions, settings, … of the daemon that is meant."""
    kind = shell_completion.get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "headrace", _VARIABLE)
    if shell == "bash":
        click.echo(_BASH % script.source_vars())
    else:  # a prompt is no place for errors
        click.echo(script.source().replace(" headrace)", " headrace 2>/dev/null)"))
