"""The compare panel says what literal records say."""

import pytest

from eval.paper.table import compare
from tests.eval.test_paper_table import PROBES, scored
from ui.panels.compare import finding, table_html


def found(merge: str, mixture: str):
    rows = {"TSV-M": merge, "RESM": "0000 0000 0000", "Fixed ratio": mixture}
    kinds = {"Fixed ratio": "mixture", "TSV-M": "tsv_m", "RESM": "resm"}
    tried = {"TSV-M": (0.9,), "RESM": (0.2,), "Fixed ratio": ()}
    return compare(
        [scored(row, marks, method=kinds[row], validation=tried[row]) for row, marks in rows.items()], PROBES
    )


@pytest.mark.parametrize(
    ("merge", "mixture", "sentence"),
    [
        (
            "1111 1111 1111",
            "1111 1111 0000",
            "<b>TSV-M</b>, the data-free merge chosen on validation, beats mixing the data by 33 points.",
        ),
        (
            "1111 1111 0000",
            "1111 1111 1111",
            "Mixing the data beats <b>TSV-M</b>, the data-free merge chosen on validation, by 33 points.",
        ),
        (
            "1111 1111 0001",
            "1111 1111 1000",
            "<b>TSV-M</b>, the data-free merge chosen on validation, and mixing the data cannot be told apart.",
        ),
    ],
)
def test_the_finding_names_the_winner_only_where_there_is_one(merge: str, mixture: str, sentence: str) -> None:
    text = finding(found(merge, mixture))
    assert f"<h2>{sentence}</h2>" in text
    assert "llama full 1" in text


def test_without_a_whole_unit_the_page_says_so() -> None:
    assert finding(None).startswith("<h2>Nothing has been compared yet.</h2>")


def test_the_table_has_a_row_a_model_mixtures_first() -> None:
    comparison = found("1111 1111 0000", "1111 1111 1111")
    assert comparison
    rows = table_html(comparison).split('<th scope="row">')[1:]
    assert [row.split("</th>")[0] for row in rows] == ["Fixed ratio", "TSV-M", "RESM"]
    assert "<td>66.7 (67 to 67)</td><td>0.0 (0 to 0)</td>" in rows[1]
    assert "<td>−33.3 (−33.3 to −33.3)</td>" in rows[1]
