"""A setting as a recipe writes it: one value, a gradient over depth, or cases by tensor name."""

from dataclasses import dataclass
from typing import Any

from merging.method import Value
from merging.recipe_form import NUMBER


@dataclass(frozen=True)
class Case:
    """`{filter, value}`: the value for tensors whose name contains `filter` (None: for all)."""

    filter: str | None
    value: "Setting"


# A number, switch or word; numbers over depth (a gradient); words (globs); or cases, the first that fits counts.
Setting = float | int | bool | str | None | tuple["float | str | Case", ...]
Settings = tuple[tuple[str, Setting], ...]


def resolve(setting: Setting, tensor: str, depth: float) -> float | int | bool | str | tuple[str, ...] | None:
    """The value of a setting for one tensor at `depth` (0 first layer .. 1 last), as mergekit resolves it.

    Gradients interpolate linearly; of cases the first whose filter occurs in the tensor's name counts; None where
    no case fits (the caller then asks the next wider scope).
    """
    if not isinstance(setting, tuple):
        return setting
    if setting and all(isinstance(item, Case) for item in setting):
        for case in setting:
            assert isinstance(case, Case)
            if case.filter in (None, "*") or case.filter in tensor:
                return resolve(case.value, tensor, depth)
        return None
    numbers = [item for item in setting if isinstance(item, (int, float))]
    if len(numbers) < len(setting) or not setting:
        return tuple(str(item) for item in setting)
    place = depth * (len(numbers) - 1)
    left = min(int(place), len(numbers) - 1)
    right = min(left + 1, len(numbers) - 1)
    return numbers[left] + (place - left) * (numbers[right] - numbers[left])


def read_settings(raw: dict | None) -> Settings:
    return tuple((key, _setting(value)) for key, value in (raw or {}).items())


def _setting(value: Any) -> Setting:
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return tuple(_item(item) for item in value)
    return value


def _item(value: Any) -> float | str | Case:
    if isinstance(value, dict):
        return Case(value.get("filter"), _setting(value["value"]))
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def plain_settings(settings: Settings) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in settings}


def _plain_value(value: Setting) -> Any:
    if not isinstance(value, tuple):
        return value
    return [_plain_case(item) if isinstance(item, Case) else item for item in value]


def _plain_case(case: Case) -> dict[str, Any]:
    value = {"value": _plain_value(case.value)}
    return value if case.filter is None else {"filter": case.filter, **value}


def value_of(setting: Setting, default: Value) -> Value:
    """The one value a control can show of a setting: the mean of a list over depth, the last of cases."""
    if setting is None:
        return default
    if not isinstance(setting, tuple):
        return setting
    if setting and isinstance(setting[-1], Case):
        return value_of(setting[-1].value, default)
    numbers = [item for item in setting if isinstance(item, (int, float))]
    if numbers:
        return sum(numbers) / len(numbers)
    return tuple(str(item) for item in setting)
