"""The report says what literal records say, and how many seeds they rest on."""

from pathlib import Path
from xml.etree import ElementTree

from benchmarks.paper.report import write_report
from eval.paper.records import Record
from tests.eval.test_paper_table import PROBES, scored


def unit(family: str, seed: int) -> list[Record]:
    at = (family, "full", seed)
    grid = {"setting": {"knobs": {"density": 0.2, "lambda": 1.4}, "weights": (1, 1, 1)}, "validation": (0.1, 0.7)}
    return [
        scored("base", "0000 0000 1111", at, method="base", validation=()),
        *(scored(h, "1111 1111 0000", at, method="expert", validation=()) for h in ("helpful", "honest", "harmless")),
        scored("Fixed ratio", "1111 1111 1111", at, method="mixture", validation=()),
        scored("TIES", "1111 0000 0000", at, **grid),
        scored("TSV-M", "1111 1111 0000", at, method="tsv_m", **(grid | {"validation": (0.3,)})),
        scored("RESM", "1111 1111 1111", at, method="resm", **(grid | {"validation": (0.4,)})),
    ]


def test_the_report_of_two_units(tmp_path: Path) -> None:
    assert write_report([*unit("llama", 0), *unit("gpt_neox", 0)], PROBES, tmp_path)
    lines = (tmp_path / "paper.md").read_text().splitlines()
    text = "\n".join(lines)
    row = next(line for line in lines if line.startswith("| Data-free merges | TIES |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["Data-free merges", "TIES",
                     "100.0 (100 to 100)", "0.0 (0 to 0)", "0.0 (0 to 0)", "33.3 (33 to 33)", "0.0 (0 to 0)",
                     "−33.3 (−33.3 to −33.3)", "−66.7 (−66.7 to −66.7)"]  # fmt: skip
    assert "by family and paradigm: llama full 1, gpt_neox full 1." in text
    assert "**Not yet run: llama lora, gpt_neox lora.**" in text
    assert "**Fewer than 3 seeds in 2 of them**" in text
    assert "| TIES | 6 | density 0.2, lambda 1.4 (2) |" in text
    assert "2. **Merging balances the three H better than mixing data.** *Refuted.* TIES against" in text
    assert "3. **What decides" in text
    assert "*Confirmed.* RESM against TSV-M +33.3" in text
    assert "pair by pair" not in text


def test_a_row_that_one_of_three_units_has_waits_and_its_pairs_rest_on_that_unit(tmp_path: Path) -> None:
    new = scored("RegMean", "1111 1111 1111", ("llama", "full", 0), method="regmean",
                 setting={"knobs": {"lambda": 1.3}, "weights": (1, 1, 1), "texts": 64})  # fmt: skip
    records = [*unit("llama", 0), *unit("llama", 1), *unit("gpt_neox", 0), new]
    assert write_report(records, PROBES, tmp_path)
    text = (tmp_path / "paper.md").read_text()
    assert "llama full 2, gpt_neox full 1" in text
    assert "**In too few of them to be shown yet: RegMean.**" in text
    assert "## Calibrated merges and routing, pair by pair\n\nTraining seeds behind each number, by family and " in text
    assert "| RegMean | TSV-M | +33.3 (+33.3 to +33.3): above | +100.0 (+100.0 to +100.0): above |" in text


def test_families_are_paired_apart_too(tmp_path: Path) -> None:
    """RegMean passes every probe in one family and none of two thirds in the other."""
    tuned = {"method": "regmean", "setting": {"knobs": {"lambda": 1.3}, "weights": (1, 1, 1), "texts": 64}}
    new = [scored("RegMean", passed, (family, "full", 0), **tuned)
           for family, passed in (("llama", "1111 1111 1111"), ("gpt_neox", "1111 0000 0000"))]  # fmt: skip
    assert write_report([*unit("llama", 0), *unit("gpt_neox", 0), *new], PROBES, tmp_path)
    text = (tmp_path / "paper.md").read_text().partition("### In each family and paradigm alone")[2]
    assert "| row | against | llama full | gpt_neox full |" in text
    assert "| RegMean | TSV-M | +33.3 (+33.3 to +33.3): above | −33.3 (−33.3 to −33.3): below |" in text
    assert "| RegMean | TSV-M | +100.0 (+100.0 to +100.0): above | +0.0 (+0.0 to +0.0): level |" in text


def test_the_picture_has_one_titled_line_a_row(tmp_path: Path) -> None:
    write_report(unit("llama", 0), PROBES, tmp_path)
    titles = [one.text or "" for one in ElementTree.parse(tmp_path / "paper.svg").iter() if one.tag.endswith("title")]
    assert len(titles) == 9
    assert titles[0] == "Fixed ratio: mean 100.0 (100 to 100), minimum 100.0 (100 to 100)"


def test_nothing_is_written_before_a_unit_is_whole(tmp_path: Path) -> None:
    assert not write_report([], PROBES, tmp_path)
    assert list(tmp_path.iterdir()) == []
