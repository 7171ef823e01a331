"""Records of the paper's comparison: bits, torn lines, other designs."""

from pathlib import Path

from eval.paper.records import DESIGN, Record, append, marks, mend, of_unit, read_records, unmarked


def record(row: str, design: int = DESIGN, **changes: object) -> Record:
    whole = {"design": design, "family": "llama", "paradigm": "full", "seed": 0, "row": row, "method": "ties",
             "version": 2, "setting": {}, "validation": (0.5,), "passed": "a4", "cpu_seconds": 1.0}  # fmt: skip
    return Record.model_validate(whole | changes)


def test_marks_are_four_probes_a_digit_and_come_back() -> None:
    passed = [True, False, True, False, False, True]
    assert marks(passed) == "a4"
    assert unmarked("a4", 6) == passed


def test_a_line_cut_short_is_no_record_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(record("TIES"), path)
    with path.open("ab") as file:
        file.write(record("DARE").model_dump_json().encode()[:40])
    assert [one.row for one in read_records(path)] == ["TIES"]
    mend(path)
    append(record("DELLA"), path)
    assert [one.row for one in read_records(path)] == ["TIES", "DELLA"]


def test_records_of_another_design_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(record("TIES", design=DESIGN + 1), path)
    append(record("DARE", seed=1), path)
    records = read_records(path)
    assert of_unit(records, ("llama", "full", 0)) == []
    assert [one.row for one in of_unit(records, ("llama", "full", 1))] == ["DARE"]
