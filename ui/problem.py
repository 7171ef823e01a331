"""The one place where a UserError is caught: it becomes a Problem on the page, and the last good picture stays."""

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator, Set
from dataclasses import asdict, replace
from html import escape
from typing import Any, get_type_hints

import gradio as gr

from merging.errors import Fix, UserError

_CLICKS = """element.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-fix]");
  if (hit) trigger("select", { fix: hit.dataset.fix });
});"""


# Nothing went wrong: something else comes first, and `do` says what.
_FIRST = ("E_CALIBRATION", "E_TEXTS", "E_BUSY", "E_PUSH", "E_TOKEN")


def problem_place() -> gr.HTML:
    """Where problems appear; `.select` carries the fix whose button was pressed (see `fix_of`)."""
    return gr.HTML(visible=False, apply_default_css=False, js_on_load=_CLICKS)


def fix_of(event: gr.EventData) -> Fix:
    """The fix in a button. It comes from the browser: where it does not fit the recipe, `apply_fix` refuses it."""
    try:
        parts = json.loads(event._data["fix"])
        return Fix(**parts | {"at": tuple(parts["at"])})
    except (KeyError, TypeError, ValueError):
        raise UserError("E_FIX", "This is no fix of a problem on this page.") from None


def shows_problems(
    place: gr.HTML, *, clears: bool = True, typed: Set[Any] = frozenset()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap an event handler that yields or returns updates; its problem appears in `place` until a run brings updates
    that `clears` it. What only follows a move does not, nor what finds nothing to do, as when a list is left unchanged:
    it would take the move's own problem away. What is `typed` in is sent once."""

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def handler(*args: Any) -> Iterator[Any]:
            clear: dict[Any, Any] = {place: gr.update(value="", visible=False)} if clears else {}
            last: dict[Any, Any] = {}
            try:
                for update in _each(fn(*args)):
                    last, clear = {**clear, **update}, {}
                    yield last
                # Gradio empties every output of a generator that yields nothing, and sends its last update once more
                # when it ends: over what was typed or moved since.
                if not last or last.keys() & typed:
                    yield {place: gr.skip()}
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
    """Bold count, numbered list with place, fact and mend, each with its button, and what was kept."""
    kind, headline = "problem", "This did not work."
    if error.code in _FIRST:
        kind, headline = "problem first", "One step first."
    if error.parts:
        items = "".join(f"<li>{marked(str(part))}{_button(part)}</li>" for part in error.parts)
        body = f"<b>{len(error.parts)} problems</b><ol>{items}</ol>"
    else:
        where = f"<code>{escape(error.where)}</code>: " if error.where else ""
        what = error.what if error.what.endswith((".", "!", "?")) else f"{error.what}."
        body = f"<b>{headline}</b><p>{where}{marked(what)} {marked(error.do)}{_button(error)}</p>"
    kept = error.kept or "Your last good merge is still live."
    return f'<div class="{kind}" role="alert">{body}<p class="kept">{escape(kept)}</p></div>'


def _button(problem: UserError) -> str:
    fixes = [problem.fix, problem.fix and problem.fix.instead]
    return "".join(
        f' <button type="button" class="fix" data-fix="{escape(json.dumps(asdict(replace(fix, instead=None))))}">'
        f"{marked(fix.label)}</button>"
        for fix in fixes
        if fix
    )


def marked(text: str) -> str:
    """What stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
