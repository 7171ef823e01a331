"""Names and marks as HTML: pytest tests/ui/test_marks.py"""

import re
from pathlib import Path

from merging.plots.picture import COLOURS
from merging.plots.scale import Scale
from ui.marks import colour_bar, label, pair

CSS = (Path(__file__).parents[2] / "assets" / "theme.css").read_text(encoding="utf-8")


def test_a_models_name_is_text_never_markup():
    assert label("<img src=x>", "teal") == (
        '<b class="who r-teal"><i class="mark r-teal" aria-hidden="true"></i>&lt;img src=x&gt;</b>'
    )


def test_a_capital_is_for_the_h_words_only():
    assert label("helpful", "helpful", capital=True).endswith("Helpful</b>")
    assert label("meta/llama", "helpful", capital=True).endswith("meta/llama</b>")


def test_a_pair_is_two_labels():
    text = re.sub(r"<[^>]+>", "", pair("helpful", "a&b", {"helpful": "helpful", "a&b": "teal"}))
    assert text == "helpful × a&amp;b"


def test_the_bar_prints_its_ends():
    bar = colour_bar(Scale("conflict", 40, -40, "pull together", "pull apart", "0 = unrelated"))
    assert re.sub(r"<[^>]+>", "", bar) == "pull together 40−40 pull apart0 = unrelated"
    assert "var(--ms-conflict)" in bar


def _tokens(selector: str) -> dict[str, str]:
    block = CSS[CSS.index(selector) :]
    return dict(re.findall(r"--ms-([a-z0-9-]+):\s*([^;]+);", block[: block.index("}")]))


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_every_model_colour_can_be_read_on_paper_and_on_panel_by_day_and_by_night():
    for selector in (":root, .light {", ":root.dark, .dark {"):
        tokens = _tokens(selector)
        for ground in ("paper", "panel"):
            for name in ("ink", "ink2", "ink3", "base", "merge", "pass", "fail", *COLOURS):
                a, b = sorted((_luminance(tokens[ground]), _luminance(tokens[name])))
                assert (b + 0.05) / (a + 0.05) >= 4.5, (selector, ground, name)


def test_each_token_has_a_night_value_and_each_model_a_mark():
    assert _tokens(":root, .light {").keys() == _tokens(":root.dark, .dark {").keys()
    for role in (*COLOURS, "base", "merge"):
        assert re.search(rf"\.r-{role} \{{ --role: var\(--ms-{role}\); --mark: ", CSS)
