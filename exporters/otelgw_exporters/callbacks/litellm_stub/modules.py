"""Puts the stand-in where ``import litellm`` finds it, in a process that runs callbacks and in no other."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from otelgw_exporters.callbacks import litellm_stub
from otelgw_exporters.callbacks.litellm_stub import custom_logger, exceptions, responses

__all__ = ["install"]

NAME = "litellm"


class UserAPIKeyAuth(responses.Fields):
    """``litellm.proxy._types.UserAPIKeyAuth``, for annotations."""


class StandardLoggingPayload(dict[str, Any]):
    """``litellm.types.utils.StandardLoggingPayload``, for annotations."""


class _Absent(importlib.abc.MetaPathFinder):
    """Says of what the stand-in lacks that it does, and keeps an installed LiteLLM from being mixed with it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - Python's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != NAME:
            return None
        raise ModuleNotFoundError(
            f"{fullname} is not there: otelgw runs callbacks with a stand-in for litellm, which has "
            f"{', '.join(sorted(name for name in sys.modules if name.startswith(f'{NAME}.')))}",
            name=fullname,
        )


def install() -> None:
    """Make ``litellm`` and the modules of it that callback files use importable."""
    types = _module("types")
    utils = _module("types.utils", **_public(responses), StandardLoggingPayload=StandardLoggingPayload)
    integrations = _module("integrations")
    logger = _module("integrations.custom_logger", CustomLogger=custom_logger.CustomLogger)
    proxy = _module("proxy")
    proxy_types = _module("proxy._types", UserAPIKeyAuth=UserAPIKeyAuth)
    verbose = logging.getLogger("litellm")
    own_logging = _module(
        "_logging", verbose_logger=verbose, verbose_proxy_logger=verbose, verbose_router_logger=verbose
    )
    types.__dict__["utils"] = utils
    integrations.__dict__["custom_logger"] = logger
    proxy.__dict__["_types"] = proxy_types
    found = {
        "": litellm_stub,
        "types": types,
        "types.utils": utils,
        "utils": utils,
        "integrations": integrations,
        "integrations.custom_logger": logger,
        "proxy": proxy,
        "proxy._types": proxy_types,
        "exceptions": exceptions,
        "_logging": own_logging,
    }
    for name, module in found.items():
        sys.modules[f"{NAME}.{name}" if name else NAME] = module
        if name and "." not in name:
            litellm_stub.__dict__[name] = module
    sys.meta_path.insert(0, _Absent())


def _public(module: ModuleType) -> dict[str, Any]:
    return {name: getattr(module, name) for name in module.__all__}


def _module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(f"{NAME}.{name}")
    made.__path__ = []
    made.__dict__.update(content)
    return made
