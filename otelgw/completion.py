"""Completion scripts for bash, zsh and fish, written from the table of flags and commands."""

from __future__ import annotations

from collections.abc import Iterator

from otelgw.config.flags import COMMANDS, FLAGS, Command, of_command

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """Return the completion script of ``shell``, one of ``SHELLS``."""
    return "\n".join({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()) + "\n"


def _names(command: str) -> list[str]:
    return [name for flag in of_command(command) for name in flag.names]


def _bash() -> Iterator[str]:
    yield "# bash completion of otelgw; load it with: source <(otelgw completion bash)"
    yield "_otelgw() {"
    yield "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}"
    yield '    local command=${COMP_WORDS[1]} words=""'
    yield '    case "$previous" in'
    for flag in {flag.name: flag for flag in FLAGS if flag.kind == "choice"}.values():
        choices = " ".join(flag.choices)
        yield f'        {"|".join(flag.names)}) COMPREPLY=($(compgen -W "{choices}" -- "$current")); return;;'
    paths = "|".join(dict.fromkeys(name for flag in FLAGS if flag.kind == "path" for name in flag.names))
    yield f'        {paths}) COMPREPLY=($(compgen -f -- "$current")); return;;'
    yield "    esac"
    yield '    case "$command" in'
    for command in COMMANDS:
        yield f'        {command.name}) words="{" ".join((*_names(command.name), *command.choices))}";;'
    names = " ".join(command.name for command in COMMANDS)
    yield f'        *) words="{names} --version --help {" ".join(_names("serve"))}";;'
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    yield "complete -F _otelgw otelgw"


def _zsh() -> Iterator[str]:
    yield "#compdef otelgw"
    yield "# zsh completion of otelgw; load it with: source <(otelgw completion zsh)"
    yield "_otelgw() {"
    yield "    local -a commands"
    yield "    commands=("
    yield from (f"        '{command.name}:{_quoted(command.help)}'" for command in COMMANDS)
    yield "    )"
    yield "    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then"
    yield "        _describe command commands"
    yield "        return"
    yield "    fi"
    yield "    case $words[2] in"
    for command in COMMANDS:
        yield f"        {command.name})"
        yield from _zsh_arguments(command)
    yield "        *)"
    yield from _zsh_arguments(COMMANDS[0])
    yield "    esac"
    yield "}"
    yield "compdef _otelgw otelgw"


def _zsh_arguments(command: Command) -> Iterator[str]:
    arguments = []
    for flag in of_command(command.name):
        action = {
            "switch": "",
            "path": f":{flag.name}:_files",
            "choice": f":{flag.name}:({' '.join(flag.choices)})",
        }.get(flag.kind, f":{flag.name}:")
        arguments += [f"'{name}[{_quoted(flag.help)}]{action}'" for name in flag.names]
    if command.choices:
        arguments.append(f"'*:{command.argument}:({' '.join(command.choices)})'")
    yield f"            _arguments {' '.join(arguments)};;"


def _fish() -> Iterator[str]:
    yield "# fish completion of otelgw; load it with: otelgw completion fish | source"
    names = " ".join(command.name for command in COMMANDS)
    yield f'complete -c otelgw -f -n "not __fish_seen_subcommand_from {names}" -l version'
    for command in COMMANDS:
        described = f"-a {command.name} -d '{_quoted(command.help)}'"
        yield f'complete -c otelgw -f -n "not __fish_seen_subcommand_from {names}" {described}'
        for flag in of_command(command.name):
            options = " ".join(
                f"-l {name[2:]}"
                if name.startswith("--")
                else f"-s {name[1:]}"
                if len(name) == len("-c")
                else f"-o {name[1:]}"
                for name in flag.names
            )
            value = {"switch": "", "path": " -r -F", "choice": f" -x -a '{' '.join(flag.choices)}'"}.get(
                flag.kind, " -x"
            )
            yield (
                f'complete -c otelgw -n "__fish_seen_subcommand_from {command.name}" {options}{value}'
                f" -d '{_quoted(flag.help)}'"
            )
        if command.choices:
            yield f"complete -c otelgw -n '__fish_seen_subcommand_from {command.name}' -a '{' '.join(command.choices)}'"


def _quoted(text: str) -> str:
    return text.replace("'", "").replace("[", "(").replace("]", ")").replace(":", ";")
