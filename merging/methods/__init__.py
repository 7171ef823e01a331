"""Every file beside this one holds one merge method of the same name; `METHODS` finds them all."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from merging.method import Method


def _discover() -> Mapping[str, Method]:
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return MappingProxyType({name: getattr(importlib.import_module(f"{__name__}.{name}"), name) for name in names})


METHODS: Mapping[str, Method] = _discover()
