"""``python -m tests.servers build [NAME …]`` gets servers for the tests and prints where they are."""

from __future__ import annotations

import argparse

from tests.servers import SERVERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers")
    parser.add_argument("command", choices=["build"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SERVERS)}; all without one")
    names = parser.parse_args().names
    if unknown := set(names) - SERVERS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in names or SERVERS:
        print(f"{name}: {SERVERS[name].build()}", flush=True)


if __name__ == "__main__":
    main()
