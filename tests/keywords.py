"""What a method is called with where a test gives only some of its settings."""

from typing import Any

from merging.method import Method


def keywords(method: Method, **settings: Any) -> dict[str, Any]:
    """The settings, and the defaults of the others, as arguments."""
    values = {knob.key: knob.default for knob in method.knobs} | settings
    return {"lambda_" if key == "lambda" else key: value for key, value in values.items()}
