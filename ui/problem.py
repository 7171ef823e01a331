"""The one place where a UserError is caught: it becomes a Problem on the page, and the last good picture stays."""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, get_type_hints

import gradio as gr

from merging.errors import UserError


def shows_problems(place: gr.HTML) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap an event handler that yields or returns updates; its problem appears in `place` until a run succeeds."""

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def handler(*args: Any) -> Iterator[Any]:
            clear: dict[Any, Any] = {place: gr.update(value="", visible=False)}
            try:
                for update in _each(fn(*args)):
                    yield {**clear, **update}
                    clear = {}
                if clear:  # Gradio empties every output of a generator that yields nothing
                    yield clear
            except UserError as error:
                yield {place: gr.update(value=problem_html(error), visible=True)}

        # Gradio reads from these which argument is its own (gr.EventData).
        handler.__annotations__ = get_type_hints(fn.func if isinstance(fn, functools.partial) else fn)
        return handler

    return decorate


def _each(made: Any) -> Iterator[dict[Any, Any]]:
    """What a handler yields, or the one thing it returns."""
    if inspect.isgenerator(made):
        yield from made  # pyright: ignore[reportReturnType]
    else:
        yield made


def problem_html(error: UserError) -> str:
    """Bold count, numbered list with place, fact and mend, and what was kept."""
    head, *lines = error.what.splitlines()
    items = [line.split(". ", 1)[-1] for line in lines if line.strip()]
    if items:
        body = f"<b>{escape(head.rstrip(':'))}</b><ol>{''.join(f'<li>{_marked(item)}</li>' for item in items)}</ol>"
    else:
        where = f"<code>{escape(error.where)}</code>: " if error.where else ""
        body = f"<b>This did not work.</b><p>{where}{_marked(error.what)} {_marked(error.do)}</p>"
    kept = error.kept or "Your last good merge is still live."
    return f'<div class="problem" role="alert">{body}<p class="kept">{escape(kept)}</p></div>'


def _marked(text: str) -> str:
    """What stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
