"""Whose name the Hub is asked in."""

import os

from merging.hub import Hub, this_machine


def visitors_hub(token: str | None) -> Hub:
    """The Hub in the visitor's own name. On a Space the owner's login is never lent to visitors."""
    if typed := (token or "").strip():  # a box that was never touched holds None
        return Hub(token=typed)
    return Hub() if "SPACE_ID" in os.environ else this_machine()
