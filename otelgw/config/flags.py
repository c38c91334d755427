"""The command line's flags as a table: the parser, the variables, the completions and the reference page read it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from otelgw_exporters.rows.collector import TARGETS

__all__ = ["COMMANDS", "FLAGS", "Command", "Flag", "Flags", "boolean", "of_command"]

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: ``names`` are its spellings, the first is shown; ``kind`` is text, path, integer, choice or switch."""

    name: str
    names: tuple[str, ...]
    variable: str
    help: str
    kind: str = "text"
    choices: tuple[str, ...] = ()
    default: str = ""
    commands: tuple[str, ...] = ("serve",)

    def read(self, text: str) -> str | int | bool | None:
        """Return the value of the flag's variable; None where it says nothing.

        Raises:
            ValueError: the text is no such value; says what is.
        """
        # Kubernetes sets NAME_PORT=tcp://10.0.0.1:4000 for every Service, so also for one that is called otelgw.
        if not text.strip() or text.startswith("tcp://"):
            return None
        if self.kind == "integer":
            if not text.strip().isdecimal():
                raise ValueError("must be a number")
            return int(text.strip()[:10])
        if self.kind == "switch":
            value = boolean(text)
            if value is None:
                raise ValueError("must be true or false")
            return value
        if self.kind == "choice" and text.strip() not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return text.strip()


@dataclass(frozen=True, slots=True)
class Command:
    """A command; ``argument`` stands after its name, and where ``file`` is set the name of a file after that."""

    name: str
    help: str
    argument: str = ""
    choices: tuple[str, ...] = ()
    optional: bool = True
    file: bool = False


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; None where it said nothing, so that the variable and then the file decide."""

    config: str | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    server: str | None = None
    debug: bool | None = None
    detailed_debug: bool | None = None
    allow_open: bool | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    @classmethod
    def names(cls) -> list[str]:
        return [item.name for item in fields(cls)]


_CONFIGURED = ("serve", "check", "models", "collect", "spool", "collector", "doctor")
_RUNNING = ("serve", "collect")
_BOUND = ("serve", "check", "spool", "doctor")
_SPOOL = ("spool",)
_COLLECTOR = ("collector",)

FLAGS: tuple[Flag, ...] = (
    Flag("config", ("--config", "-c", "-config"), "OTELGW_CONFIG", "the config file", "path", commands=_CONFIGURED),
    Flag("host", ("--host",), "OTELGW_HOST", "the address to listen on", default="127.0.0.1", commands=_BOUND),
    Flag("port", ("--port",), "OTELGW_PORT", "the port to listen on", "integer", default="4000", commands=_BOUND),
    Flag("workers", ("--workers",), "OTELGW_WORKERS", "worker processes", "integer", default="1"),
    Flag(
        "server",
        ("--server",),
        "OTELGW_SERVER",
        "the HTTP server for callers; uvicorn needs the extra otelgw[uvicorn]",
        "choice",
        ("hypercorn", "uvicorn"),
        "hypercorn",
    ),
    Flag("debug", ("--debug",), "OTELGW_DEBUG", "log at debug level", "switch", commands=_RUNNING),
    Flag(
        "detailed_debug",
        ("--detailed-debug", "--detailed_debug"),
        "OTELGW_DETAILED_DEBUG",
        "the same, in LiteLLM's spelling",
        "switch",
        commands=_RUNNING,
    ),
    Flag(
        "allow_open",
        ("--allow-open",),
        "OTELGW_ALLOW_OPEN",
        "listen beyond loopback without a master_key: anybody who reaches the port can spend your tokens",
        "switch",
        commands=_BOUND,
    ),
    Flag("ssl_certfile", ("--ssl-certfile",), "OTELGW_SSL_CERTFILE", "TLS certificate chain, PEM", "path"),
    Flag("ssl_keyfile", ("--ssl-keyfile",), "OTELGW_SSL_KEYFILE", "TLS private key, PEM", "path"),
    Flag(
        "strict",
        ("--strict",),
        "OTELGW_STRICT",
        "count unknown keys, unavailable destinations and missing keys as errors",
        "switch",
        commands=("check",),
    ),
    Flag("host", ("--host",), "OTELGW_HOST", "the gateway's address", default="127.0.0.1", commands=("test",)),
    Flag("port", ("--port",), "OTELGW_PORT", "the gateway's port", "integer", default="4000", commands=("test",)),
    Flag("url", ("--url",), "OTELGW_URL", "the gateway's URL, instead of host and port", commands=("test",)),
    Flag("key", ("--key",), "OTELGW_KEY", "the key to call it with", commands=("test",)),
    Flag("model", ("--model",), "OTELGW_MODEL", "the model to ask; else the first of /v1/models", commands=("test",)),
    Flag("message", ("--message",), "OTELGW_MESSAGE", "what to say", default="hello", commands=("test",)),
    Flag("stream", ("--stream",), "OTELGW_STREAM", "ask for a stream", "switch", commands=("test",)),
    Flag("show", ("--show",), "OTELGW_SPOOL_SHOW", "the number of one dead letter", "integer", commands=_SPOOL),
    Flag("redrive", ("--redrive",), "OTELGW_SPOOL_REDRIVE", "send dead letters again", "switch", commands=_SPOOL),
    Flag("since", ("--from",), "OTELGW_SPOOL_FROM", "replay from then on: 2026-01-31T12:00, or 2h", commands=_SPOOL),
    Flag("until", ("--to",), "OTELGW_SPOOL_TO", "replay up to then; else up to now", commands=_SPOOL),
    Flag("destination", ("--destination",), "OTELGW_SPOOL_DESTINATION", "the destination's name", commands=_SPOOL),
    Flag(
        "target",
        ("--to",),
        "OTELGW_COLLECTOR_TO",
        "the backend that the Collector passes spans on to",
        "choice",
        tuple(TARGETS),
        commands=_COLLECTOR,
    ),
    Flag(
        "otelcol",
        ("--otelcol",),
        "OTELGW_OTELCOL",
        "the Collector to check with; else otelcol-contrib or otelcol on PATH",
        "path",
        commands=_COLLECTOR,
    ),
    Flag("timeout", ("--timeout",), "OTELGW_TIMEOUT", "seconds to wait", "integer", default="60", commands=("test",)),
)

COMMANDS: tuple[Command, ...] = (
    Command("serve", "run the gateway; also what happens without a command"),
    Command("check", "read the config and show every problem at once, without starting anything"),
    Command("test", "send one request to a running gateway and print the answer, the trace id and the headers"),
    Command("models", "list the models of the config, their providers and prices"),
    Command("destinations", "list the destinations, or show one with its options and variables", "name"),
    Command("doctor", "send a test span to each destination, read it back where that can be, say what to mend", "name"),
    Command("collect", "receive spans from other applications by OTLP and deliver them, without a gateway"),
    Command(
        "collector",
        "print the config of an OpenTelemetry Collector for what this one sends, or check one",
        "action",
        ("render", "check"),
        optional=False,
        file=True,
    ),
    Command(
        "spool",
        "show what is not delivered yet, list dead letters or send them again, replay what was delivered",
        "action",
        ("status", "dead-letters", "replay"),
    ),
    Command("schema", "print the JSON Schema of the config file"),
    Command("completion", "print the completion script of a shell", "shell", ("bash", "zsh", "fish"), optional=False),
)


def boolean(text: str) -> bool | None:
    """Return the truth of ``text`` (1, true, yes, on …), None when it is neither true nor false."""
    lowered = text.strip().lower()
    return True if lowered in TRUE else False if lowered in FALSE else None


def of_command(name: str) -> list[Flag]:
    return [flag for flag in FLAGS if name in flag.commands]
