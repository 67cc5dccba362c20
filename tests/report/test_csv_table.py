"""The CSV file: longer headers, and what a resumed run makes of it."""

from pathlib import Path

from pnet_jax.report.csv_table import CsvWriter
from pnet_jax.report.jsonl import Record


def test_new_names_lengthen_the_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    writer = CsvWriter(path, kept=[])
    assert not path.exists()
    writer.write(Record("train", 1, {"loss": 0.5, "rate": 1e-05}))
    assert path.read_text() == "step,loss,rate\n1,0.5,1e-05\n"
    writer.write(Record("train", 2, {"rate": 2.0}))
    assert path.read_text() == "step,loss,rate\n1,0.5,1e-05\n2,,2.0\n"
    writer.write(Record("train", 3, {"norm": 7, "loss": 0.25}))
    writer.write(Record("train", 4, {"norm": 8}))
    assert path.read_text() == ("step,loss,rate,norm\n1,0.5,1e-05,\n2,,2.0,\n3,0.25,,7\n4,,,8\n")


def test_reopened_file_is_written_from_the_kept_records(tmp_path: Path) -> None:
    records = [
        Record("train", 1, {"b": 1.5}),
        Record("train", 2, {"a, quoted": 2.5, "b": 3.5}),
        Record("train", 3, {"c": 4.5}),
    ]
    whole = CsvWriter(tmp_path / "whole.csv", kept=[])
    for record in records:
        whole.write(record)
    for kept in range(len(records) + 1):
        path = tmp_path / f"{kept}.csv"
        path.write_text("step,b\n1,1.")
        resumed = CsvWriter(path, kept=records[:kept])
        for record in records[kept:]:
            resumed.write(record)
        assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "whole.csv").read_text() == (
        'step,b,"a, quoted",c\n1,1.5,,\n2,3.5,2.5,\n3,,,4.5\n'
    )


def test_a_record_without_scalars(tmp_path: Path) -> None:
    writer = CsvWriter(tmp_path / "t.csv", kept=[])
    writer.write(Record("eval", 1, {}))
    writer.write(Record("eval", 2, {}))
    assert (tmp_path / "t.csv").read_text() == "step\n1\n2\n"
