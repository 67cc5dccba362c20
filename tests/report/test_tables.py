"""Tables as text and as JSON."""

import json
from pathlib import Path

from pnet_jax.report.tables import format_table, write_table

ROWS = [
    {"stage": "pretrain", "top-1": "31.2%", "images": "50,112"},
    {"stage": "from scratch", "top-1": "4.0%", "note": "98 classes"},
]


def test_columns_are_aligned() -> None:
    assert format_table(ROWS).splitlines() == [
        "stage         top-1  images  note",
        "------------  -----  ------  ----------",
        "pretrain      31.2%  50,112",
        "from scratch   4.0%          98 classes",
    ]


def test_empty_tables() -> None:
    assert format_table([]) == ""
    assert format_table([{}]) == ""


def test_json(tmp_path: Path) -> None:
    write_table(tmp_path / "table.json", ROWS)
    assert json.loads((tmp_path / "table.json").read_text()) == ROWS
