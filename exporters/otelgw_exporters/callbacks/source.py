"""Where a callback's code is: ``module.instance`` beside the config file or installed, a path, or an object in a
bucket.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from otelgw_exporters.errors import DestinationConfigError

__all__ = ["Source", "check_bucket", "loaded", "parse", "verified"]

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_STEM = re.compile(r"(?!\.)[\w.-]+")
_BUCKETS = {"s3": "s3", "gs": "gs", "gcs": "gs"}


class Source(NamedTuple):
    """One callback. ``module`` is dotted, a path without ``.py``, or a key in ``bucket``; ``scheme`` is the store's."""

    module: str
    instance: str
    scheme: str = ""
    bucket: str = ""

    @property
    def shown(self) -> str:
        """What it is called in messages."""
        name = f"{self.module}.{self.instance}"
        return f"{self.scheme}://{self.bucket}/{name}" if self.scheme else name

    @property
    def key(self) -> str:
        """The object's key in its bucket."""
        return f"{self.module}.py"

    def beside(self, directory: str) -> Path:
        """Return the file that is looked for first: below ``directory``, or at a path of its own."""
        if "/" in self.module:
            return Path(directory, f"{self.module}.py")
        return Path(directory, *self.module.split(".")).with_suffix(".py")


def parse(target: str) -> Source:
    """Return what ``target`` names.

    Raises:
        DestinationConfigError: it names nothing; says what is right.
    """
    parts = urlsplit(target) if "://" in target else None
    path = target if parts is None else parts.path.lstrip("/")
    module, dot, instance = path.rpartition(".")
    good = bool(dot) and instance.isidentifier()
    if parts is not None:
        if good and parts.scheme in _BUCKETS and parts.netloc and all(map(_STEM.fullmatch, module.split("/"))):
            return Source(module, instance, _BUCKETS[parts.scheme], parts.netloc)
    elif good and ("/" in path or _DOTTED.fullmatch(path)):
        return Source(module.removesuffix(".py"), instance)
    raise DestinationConfigError(
        f"{target!r} names no callback; write module.instance, /path/to/module.instance, s3://bucket/module.instance "
        "or gcs://bucket/module.instance"
    )


def check_bucket(found: Source, allowed: Sequence[str]) -> None:
    """Check that code from a bucket may be run.

    Raises:
        DestinationConfigError: it may not.
    """
    names = {f"{found.scheme}://{found.bucket}", found.bucket} | (
        {f"gcs://{found.bucket}"} if found.scheme == "gs" else set()
    )
    if found.scheme and not names.intersection(each.rstrip("/") for each in allowed):
        raise DestinationConfigError(
            f"{found.shown} is not loaded: whoever can write to the bucket could run code here. If you trust them, "
            f"name the bucket: otelgw: {{allow_remote_callbacks: [{found.bucket}]}}"
        )


def verified(code: bytes, sha256: str, shown: str) -> bytes:
    """Return ``code`` if it is the one that was pinned; without a pin, any.

    Raises:
        DestinationConfigError: it is another one.
    """
    found = hashlib.sha256(code).hexdigest()
    if sha256 and found != sha256.lower():
        raise DestinationConfigError(
            f"{shown}: its sha256 is {found}, not the one that is pinned; it is not run. If the change is yours, pin "
            "the new one"
        )
    return code


def loaded(source: Source, directory: str, code: bytes | None = None) -> Any:
    """Return the object that ``source`` names, its module run. ``code`` is that of a module from a bucket.

    The folders of the config file and of the module are put first where modules are looked for, so that a callback
    can import what stands beside it.

    Raises:
        ModuleNotFoundError, AttributeError: there is no such module or object.
        BaseException: whatever the module raises.
    """
    if directory:
        sys.path.insert(0, directory)
    module = _module(source, directory) if code is None else _run(source, code)
    try:
        return getattr(module, source.instance)
    except AttributeError:
        raise AttributeError(f"module {source.module} has no {source.instance!r}") from None


def _module(source: Source, directory: str) -> ModuleType:
    path = source.beside(directory)
    if not path.is_file():
        if "/" in source.module:
            raise ModuleNotFoundError(f"there is no file {path}")
        return importlib.import_module(source.module)
    name = source.module.replace("/", ".").strip(".")
    if "/" in source.module:
        name = path.stem
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module


def _run(source: Source, code: bytes) -> ModuleType:
    name = source.module.rpartition("/")[2]
    module = ModuleType(name)
    module.__file__ = source.shown
    sys.modules[name] = module
    exec(compile(code, f"{source.scheme}://{source.bucket}/{source.key}", "exec"), module.__dict__)  # noqa: S102
    return module
