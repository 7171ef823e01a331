"""Gradio's theme: every colour variable names one of our tokens, so that assets/theme.css alone knows colours."""

import inspect

from gradio.themes import Base
from gradio.themes.utils.fonts import LocalFont

_WEIGHTS = (400, 700)  # Gradio ships full glyph sets only for these two
_PLAIN = {
    "body_text_size": "14px",
    "prose_text_size": "14px",
    "block_info_text_size": "12.5px",
    "block_info_text_weight": "400",
    "block_label_text_size": "14px",
    "block_label_text_weight": "400",
    "block_label_padding": "0",
    "block_label_margin": "0",
    "block_label_border_width": "0px",
    "block_title_text_size": "14px",
    "block_title_text_weight": "400",
    "block_title_padding": "0",
    "block_title_border_width": "0px",
    "block_border_width": "0px",
    "block_padding": "0",
    "block_radius": "0px",
    "container_radius": "4px",
    "panel_border_width": "0px",
    "shadow_spread": "0px",
    "form_gap_width": "0px",
    "layout_gap": "12px",
    "section_header_text_size": "14px",
    "section_header_text_weight": "700",
    "input_text_size": "14px",
    "input_radius": "4px",
    "input_border_width": "1px",
    "input_padding": "8px 12px",
    "checkbox_label_text_size": "14px",
    "checkbox_label_padding": "6px 12px",
    "checkbox_label_gap": "0px",
    "table_radius": "4px",
    "button_border_width": "1px",
    "button_transition": "background-color .12s, color .12s, border-color .12s",
    "button_transform_hover": "none",
    "button_transform_active": "none",
    **{
        f"button_{size}_{part}": value
        for size, padding in {"small": "4px 10px", "medium": "7px 14px", "large": "8px 16px"}.items()
        for part, value in {"padding": padding, "radius": "4px", "text_size": "14px", "text_weight": "700"}.items()
    },
}
# The last rule that fits a variable's name decides its token; `none` and `transparent` are CSS's own words.
_RULES = (
    ("_color", "ink"),
    ("color_accent", "ink"),
    ("text_color_subdued", "ink3"),
    ("info_text_color", "ink3"),
    ("label_text_color", "ink2"),
    ("placeholder_color", "ink3"),
    ("_fill", "panel"),
    ("border_color", "line"),
    ("border_color_accent", "ink"),
    ("border_color_focus", "ink"),
    ("border_color_selected", "ink"),
    ("checkbox_border_color", "ink3"),
    ("body_background_fill", "paper"),
    ("background_fill_secondary", "paper"),
    ("block_background_fill", "transparent"),
    ("block_label_background_fill", "transparent"),
    ("block_title_background_fill", "transparent"),
    ("block_border_color", "transparent"),
    ("panel_background_fill", "transparent"),
    ("code_background_fill", "well"),
    ("stat_background_fill", "well"),
    ("color_accent_soft", "well"),
    ("table_row_focus", "well"),
    ("table_even_background_fill", "paper"),
    ("table_odd_background_fill", "paper"),
    ("checkbox_background_color", "panel"),
    ("checkbox_background_color_selected", "ink"),
    ("checkbox_label_background_fill", "transparent"),
    ("checkbox_label_background_fill_hover", "well"),
    ("checkbox_label_background_fill_selected", "ink"),
    ("checkbox_label_text_color_selected", "paper"),
    ("error_background_fill", "panel"),
    ("error_border_color", "fail"),
    ("error_text_color", "fail"),
    ("error_icon_color", "fail"),
    ("button_primary_background_fill", "ink"),
    ("button_primary_background_fill_hover", "ink2"),
    ("button_primary_border_color", "ink"),
    ("button_primary_text_color", "paper"),
    ("button_secondary_background_fill", "panel"),
    ("button_secondary_background_fill_hover", "well"),
    ("button_cancel_background_fill", "panel"),
    ("button_cancel_background_fill_hover", "well"),
    ("button_cancel_border_color", "fail"),
    ("button_cancel_text_color", "fail"),
    ("shadow", "none"),
)


class Theme(Base):
    def __init__(self) -> None:
        sans = LocalFont("IBM Plex Sans", weights=_WEIGHTS), "ui-sans-serif", "system-ui", "sans-serif"
        mono = LocalFont("IBM Plex Mono", weights=_WEIGHTS), "ui-monospace", "Consolas", "monospace"
        super().__init__(font=sans, font_mono=mono)
        self.name = "mergescope"
        super().set(**_PLAIN, **_colours())


def _colours() -> dict[str, str]:
    """A value for each colour variable of Gradio's theme and for its dark twin."""
    names = [name for name in inspect.signature(Base.set).parameters if name not in ("self", *_PLAIN)]
    found = {name: _token(name.removesuffix("_dark")) for name in names}
    return {name: value for name, value in found.items() if value}


def _token(name: str) -> str:
    if name in ("checkbox_check", "radio_circle"):  # pictures, not colours
        return ""
    token = ""
    for part, value in _RULES:
        if part in name:
            token = value
    if token in ("", "none", "transparent"):
        return token
    return f"var(--ms-{token})"
