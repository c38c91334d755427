"""The command line: parse, call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from otelgw import __version__
from otelgw.config.flags import COMMANDS, Flags, of_command
from otelgw.errors import ConfigError, OtelgwError

if TYPE_CHECKING:
    from otelgw.config.check import Report
    from otelgw.config.settings import Settings

__all__ = ["main"]

OK, FAILED, USAGE = 0, 1, 2
_COLORS = {"error": "31", "warning": "33", "ok": "32"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 ok, 1 at run time, 2 usage or config."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(_with_command(arguments))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        _say_all("error", error.problems)
        return USAGE
    except OtelgwError as error:
        _say_all("error", [str(error)])
        return FAILED
    except BrokenPipeError:
        # The reader of a pipe has gone; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _with_command(arguments: list[str]) -> list[str]:
    """Return the arguments with the command that they mean: ``serve`` by default, ``test`` for LiteLLM's ``--test``."""
    if "--test" in arguments and (not arguments or arguments[0].startswith("-")):
        return ["test", *(argument for argument in arguments if argument != "--test")]
    names = {command.name for command in COMMANDS}
    if arguments and (arguments[0] in names or arguments[0] in {"--version", "--help", "-h"}):
        return arguments
    if arguments and not arguments[0].startswith("-"):
        return arguments
    return ["serve", *arguments]


class _Command(argparse.ArgumentParser):
    """A command whose words may stand before, between and after its flags, in every version of Python.

    By itself argparse gives up on an optional word, such as the file of ``collector check``, once a flag has come.
    """

    _within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._within:
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            options, rest = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False
        if rest:
            self._refuse(rest)
        return options, rest

    def _refuse(self, words: Sequence[str]) -> NoReturn:
        """End with this command's usage; a word after an unknown flag is not told, it may be a secret."""
        from difflib import get_close_matches

        flags = [word.partition("=")[0] for word in words if word.startswith("-")]
        known = sorted(name for action in self._actions for name in action.option_strings)
        if not flags:
            told = "; the config file is named by --config" if "--config" in known else ""
            self.error(f"one word too many: {words[0]}{told}")
        near = get_close_matches(flags[0], known, n=1, cutoff=0.7)
        self.error(f"there is no flag {flags[0]}" + (f"; did you mean {near[0]}?" if near else ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otelgw",
        description="An OpenTelemetry-native LLM tracing gateway. Without a command it serves.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"otelgw {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Command)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help, allow_abbrev=False)
        for flag in of_command(command.name):
            text = f"{flag.help} [{flag.variable}]" + (f" (default: {flag.default})" if flag.default else "")
            if flag.kind == "switch":
                sub.add_argument(*flag.names, dest=flag.name, action="store_true", default=None, help=text)
            else:
                kind = int if flag.kind == "integer" else str
                choices = flag.choices or None
                sub.add_argument(*flag.names, dest=flag.name, type=kind, choices=choices, metavar="X", help=text)
        if command.name == "test":
            sub.add_argument(
                "-c", "-config", "--config", "--debug", "--detailed_debug", nargs="?", help=argparse.SUPPRESS
            )
        if command.argument:
            nargs = "?" if command.optional else None
            sub.add_argument(command.argument, nargs=nargs, choices=command.choices or None)
        if command.file:
            sub.add_argument("file", nargs="?")
    return parser


def _flags(options: argparse.Namespace) -> Flags:
    return Flags(**{name: getattr(options, name, None) for name in Flags.names()})


def _environment() -> Mapping[str, str]:
    from otelgw.config.env import process_environment

    return process_environment()


def _chosen(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the command's flags by name: given, else from their variables, else their defaults."""
    environment = _environment()
    chosen: dict[str, Any] = {}
    for flag in of_command(command):
        value = getattr(options, flag.name, None)
        try:
            chosen[flag.name] = flag.read(environment.get(flag.variable, "")) if value is None else value
        except ValueError as error:
            raise ConfigError([f"{flag.variable}: {error}"]) from None
        if chosen[flag.name] is None and flag.default:
            chosen[flag.name] = flag.read(flag.default)
    return chosen


def _serve(options: argparse.Namespace) -> int:
    from otelgw.config.load import load

    def reload() -> Settings:
        return load(options.config, _environment(), _flags(options))

    settings = reload()
    from otelgw import supervisor

    return supervisor.run(settings, reload)


def _check(options: argparse.Namespace) -> int:
    from otelgw.config.check import check
    from otelgw.construction import problems

    strict = bool(_chosen(options, "check").get("strict"))
    report = check(options.config, _environment(), _flags(options), strict=strict)
    if report.ok and report.settings is not None:
        report = report._replace(errors=tuple(problems(report.settings)))
    _print_report(report)
    return OK if report.ok else USAGE


def _print_report(report: Report) -> None:
    for level, lines in (
        ("error", report.errors),
        ("warning", report.warnings),
        ("not enforced", report.not_enforced),
        ("ignored", report.ignored),
    ):
        _say_all(level, lines, sys.stdout)
    if report.ok:
        _say_all("ok", [f"{report.source or 'no config file'}  {report.summary}"], sys.stdout)


def _test(options: argparse.Namespace) -> int:
    from otelgw.probe import Probe, probe

    chosen = _chosen(options, "test")
    host = f"[{chosen['host']}]" if ":" in chosen["host"] else chosen["host"]
    answer = probe(
        Probe(
            url=chosen["url"] or f"http://{host}:{chosen['port']}",
            key=chosen["key"] or "",
            model=chosen["model"] or "",
            message=chosen["message"],
            stream=bool(chosen["stream"]),
            timeout=float(chosen["timeout"]),
        )
    )
    print(f"model     {answer.model}\nstatus    {answer.status}\ntrace id  {answer.trace_id}")
    for name, value in answer.headers:
        print(f"{name}: {value}")
    print(f"\n{answer.text}")
    return OK if answer.ok else FAILED


def _models(options: argparse.Namespace) -> int:
    from otelgw.config.load import load
    from otelgw.config.prices import price_text

    settings = load(options.config, _environment(), _flags(options))
    rows = [("MODEL", "PROVIDER", "UPSTREAM MODEL", "USD PER MILLION TOKENS", "ID")]
    rows += [
        (each.alias, each.provider, each.model, price_text(each.price), each.id[:12])
        for each in settings.deployments
        if each.listed
    ]
    _table(rows)
    return OK


def _destinations(options: argparse.Namespace) -> int:
    from otelgw_exporters import catalog
    from otelgw_exporters.errors import DestinationConfigError

    if options.name is None:
        rows = [("DESTINATION", "LITELLM'S CALLBACKS", "DESCRIPTION")]
        rows += [(row.name, ", ".join(catalog.litellm_names(row)), row.description) for row in catalog.ROWS]
        _table(rows)
        return OK
    try:
        row = catalog.row(options.name.partition("/")[0])
    except DestinationConfigError as error:
        raise ConfigError([str(error)]) from None
    from otelgw.manual import page

    for line in page(row):
        print(line)
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from otelgw import logs
    from otelgw.config.load import load

    settings = load(options.config, _environment(), _flags(options))
    logs.configure("error")
    from otelgw.doctor import MODEL, diagnose

    print(f"sending one trace of the model {MODEL} to each destination", flush=True)
    healthy = True
    for found in diagnose(settings, options.name or ""):
        healthy = healthy and found.ok
        _say_all("ok" if found.ok else "error", [f"{found.name}: {found.said}"], sys.stdout)
        if found.mend:
            print(f"  {found.mend}", flush=True)
    return OK if healthy else FAILED


def _collect(options: argparse.Namespace) -> int:
    from otelgw.config.load import load

    def reload() -> Settings:
        return load(options.config, _environment(), _flags(options), collecting=True)

    settings = reload()
    from otelgw import collect

    return collect.run(settings, reload)


def _spool(options: argparse.Namespace) -> int:
    from otelgw.config.load import load
    from otelgw.spool_command import Request, run

    chosen = _chosen(options, "spool")
    request = Request(
        action=options.action or "status",
        show=chosen["show"],
        redrive=bool(chosen["redrive"]),
        since=chosen["since"] or "",
        until=chosen["until"] or "",
        destination=chosen["destination"] or "",
    )
    for line in run(load(options.config, _environment(), _flags(options)), request):
        print(line)
    return OK


def _collector(options: argparse.Namespace) -> int:
    chosen = _chosen(options, "collector")
    if options.action == "check":
        from otelgw.collector_command import check

        if options.file is None:
            raise ConfigError(["collector check: which file? otelgw collector check FILE"])
        report = check(options.file, chosen["otelcol"] or "", _environment())
        _say_all("warning", report.notes)
        _say_all("ok", [report.text(options.file)], sys.stdout)
        return OK
    from otelgw.collector_render import TARGETS, render
    from otelgw.config.load import load

    if not chosen["target"]:
        raise ConfigError([f"collector render: --to is missing: one of {', '.join(TARGETS)}"])
    if options.file is not None:
        raise ConfigError([f"collector render: the config is named by --config: --config {options.file}"])
    print(render(load(options.config, _environment(), _flags(options)), chosen["target"]), end="")
    return OK


def _schema(_options: argparse.Namespace) -> int:
    import json

    from otelgw.config.schema import schema

    print(json.dumps(schema(), indent=2))
    return OK


def _completion(options: argparse.Namespace) -> int:
    from otelgw.completion import script

    print(script(options.shell), end="")
    return OK


_COMMANDS = {
    "serve": _serve,
    "check": _check,
    "test": _test,
    "models": _models,
    "destinations": _destinations,
    "doctor": _doctor,
    "collect": _collect,
    "collector": _collector,
    "spool": _spool,
    "schema": _schema,
    "completion": _completion,
}


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _say_all(level: str, lines: Iterable[str], stream: TextIO | None = None) -> None:
    out = stream or sys.stderr
    color = _COLORS.get(level) if out.isatty() and not _environment().get("NO_COLOR") else None
    label = f"\033[{color}m{level}\033[0m" if color else level
    for line in lines:
        print(f"{label}: {line}", file=out)


if __name__ == "__main__":
    sys.exit(main())
