"""Whether every destination can be made: what a config's own checks cannot see, such as a library that is missing.

Making one connects to nothing. The master asks in a process of its own, because it must stay small and single-threaded:
``python -m otelgw.construction`` takes settings on standard input, as the pipeline does, and prints the problems, one a
line.
"""

from __future__ import annotations

import subprocess
import sys

from otelgw.config.settings import Settings
from otelgw.process import pack, read_settings
from otelgw_exporters import catalog
from otelgw_exporters.errors import DestinationError

__all__ = ["asked", "problems"]

_PATIENCE = 30.0  # seconds for the process


def problems(settings: Settings) -> list[str]:
    """Return what is wrong with the destinations of ``settings``, one text for each that cannot be made."""
    found = []
    for destination in settings.destinations:
        try:
            catalog.build(destination.type, destination.name, destination.options).shutdown()
        except DestinationError as error:
            found.append(str(error))
    return found


def asked(settings: Settings) -> list[str]:
    """Return ``problems`` as another process finds them; one that fails or takes too long is a problem too."""
    command = [sys.executable, "-m", "otelgw.construction"]
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            command, input=pack(settings), stdout=subprocess.PIPE, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"the destinations cannot be checked ({type(error).__name__})"]
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return lines or ([f"checking the destinations ended with status {done.returncode}"] if done.returncode else [])


if __name__ == "__main__":
    said = problems(read_settings())
    for each in said:
        print(" ".join(each.split()))
    sys.exit(1 if said else 0)
