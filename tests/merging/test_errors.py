"""A UserError keeps its parts on its way through a pipe, and reads as sentences."""

import pickle

from merging.errors import UserError, all_of


def test_it_reads_as_place_fact_and_remedy():
    error = UserError("E_X", "is empty", where="weight", kept="Nothing was written.", do="Write a number.")
    assert str(error) == "weight: is empty. Nothing was written. Write a number."


def test_it_crosses_a_process_border_with_its_list():
    error = all_of([UserError("E_A", "first", where="here"), UserError("E_B", "second", do="Mend it.")])
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert [part.code for part in twin.parts] == ["E_A", "E_B"]


def test_lists_in_a_list_are_spelled_out():
    inner = all_of([UserError("E_A", "a"), UserError("E_B", "b")])
    assert [part.code for part in all_of([inner, UserError("E_C", "c")]).parts] == ["E_A", "E_B", "E_C"]
