"""Every file beside this one holds one shaper of the same name; `SHAPERS` finds them all."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from merging.shaper import Shaper


def _discover() -> Mapping[str, Shaper]:
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return MappingProxyType({name: getattr(importlib.import_module(f"{__name__}.{name}"), name) for name in names})


SHAPERS: Mapping[str, Shaper] = _discover()
