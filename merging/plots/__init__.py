"""Analysis as pictures: frozen dataclasses in, plain plotly dictionaries out. No torch, no plotly, no files."""

from merging.plots.gate import GATE_HEIGHT, gate_strip
from merging.plots.maps import MEASURES, Row, conflict_map, kept_map, row_name, row_values, rows_shown, tail_map
from merging.plots.picture import Picture, awaited, roles
from merging.plots.scale import Scale, scale_of
from merging.plots.sheet import spectra_sheet
from merging.plots.spectra import matrix_spectrum
from merging.plots.tables import conflict_table, kept_table, spectrum_table, tail_table

__all__ = [
    "GATE_HEIGHT", "MEASURES", "Picture", "Row", "Scale", "awaited", "conflict_map", "conflict_table",
    "gate_strip", "kept_map", "kept_table", "matrix_spectrum", "roles", "row_name", "row_values",
    "rows_shown", "scale_of", "spectra_sheet", "spectrum_table", "tail_map", "tail_table",
]  # fmt: skip
