"""Each kind of source gives the same files; labels come from where that kind keeps them."""

import gzip
import io
import tarfile

import pytest

from pnet_jax.data.build import sources
from pnet_jax.errors import UserError

NAMES = ("ant", "bee")
FILES = {"ant/a.jpg": b"1", "ant/sub/b.jpg": b"22", "bee/c.jpg": b"333"}


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def synset_tars() -> dict[str, bytes]:
    return {
        f"{c}.tar": tar({k.removeprefix(c + "/"): v for k, v in FILES.items() if k.startswith(c)})
        for c in NAMES
    }


def contents(source, tmp_path, names=NAMES, labels=None) -> dict[str, bytes]:
    found = sources.find(source, names, labels=labels, spool=tmp_path / "spool")
    read = {}
    for unit in found.units:
        for member in unit.members():
            assert not member.problem, member
            assert member.class_name == member.name.split("/")[0]
            with open(member.path, "rb") as file:
                file.seek(member.offset)
                read[member.name] = file.read(member.size)
    return read


def test_tars_folders_and_nested_archives_hold_the_same(tmp_path, capsys):
    (tmp_path / "tars").mkdir()
    for name, content in synset_tars().items():
        (tmp_path / "tars" / name).write_bytes(content)
    for name, content in FILES.items():
        path = tmp_path / "folders" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "whole.tar").write_bytes(tar({f"w/{k}": v for k, v in synset_tars().items()}))
    (tmp_path / "whole.tar.gz").write_bytes(gzip.compress((tmp_path / "whole.tar").read_bytes()))
    for source in ("tars", "folders", "whole.tar"):
        assert contents(tmp_path / source, tmp_path) == FILES, source
    assert capsys.readouterr().err == ""
    assert contents(tmp_path / "whole.tar.gz", tmp_path) == FILES
    assert "is compressed, which allows no random access" in capsys.readouterr().err


def test_webdataset_labels_are_indices_or_names(tmp_path):
    shard = {"x.jpg": b"1", "x.cls": b"1", "y.jpg": b"2", "y.json": b'{"label": 0}'}
    shard |= {"z.jpg": b"3", "z.cls": b"bee\n"}
    (tmp_path / "shard-0.tar").write_bytes(tar(shard))
    read = contents(tmp_path / "shard-0.tar", tmp_path)
    assert read == {"bee/x.jpg": b"1", "ant/y.jpg": b"2", "bee/z.jpg": b"3"}


@pytest.mark.parametrize("lines", ["bee\nant\n", "ImageId,Class\nv1,bee 3 4\nv2.JPEG,ant 1 2\n"])
def test_a_flat_folder_takes_its_label_file(tmp_path, lines):
    folder = tmp_path / "flat"
    folder.mkdir()
    (folder / "v1.JPEG").write_bytes(b"1")
    (folder / "v2.JPEG").write_bytes(b"2")
    labels = tmp_path / "labels.txt"
    labels.write_text(lines)
    read = contents(folder, tmp_path, labels=labels)
    assert read == {"bee/v1.JPEG": b"1", "ant/v2.JPEG": b"2"}
    labels.write_text("1\n2\n")
    with pytest.raises(UserError, match="wnids are wanted"):
        contents(folder, tmp_path, labels=labels)


def test_a_release_that_does_not_fit(tmp_path):
    (tmp_path / "folders" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="is it the right release"):
        contents(tmp_path / "folders", tmp_path)


def test_a_bomb_is_stopped(tmp_path):
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(b"\0" * (100 << 20)))
    with pytest.raises(UserError, match="expands to more than 200 times"):
        contents(tmp_path / "bomb.tar.gz", tmp_path)


def test_what_would_be_left_out_silently_is_refused(tmp_path):
    for name, content in synset_tars().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "bee").mkdir()
    with pytest.raises(UserError, match="has tars and class folders, bee for one"):
        contents(tmp_path, tmp_path)
    (tmp_path / "bee").rmdir()
    (tmp_path / "ant.tar.gz").write_bytes(gzip.compress(synset_tars()["ant.tar"]))
    with pytest.raises(UserError, match=r"Of the 3 tars .* some are of one class"):
        contents(tmp_path, tmp_path)


def test_a_damaged_archive_is_told_and_read_up_to_there(tmp_path):
    whole = tar({"a.jpg": b"1" * 600, "b.jpg": b"2" * 600})
    second = 512 + 1024  # where its header begins
    damaged = {
        "in the second header": whole[: second + 100],
        "before it": whole[:second],
        "in the second file": whole[: second + 512 + 100],
        "rubbish for a header": whole[:second] + b"x" * 512 + whole[second + 512 :],
    }
    for what, content in damaged.items():
        (tmp_path / "ant.tar").write_bytes(content)
        (unit,) = sources.find(tmp_path, NAMES, labels=None, spool=tmp_path).units
        first, *rest = unit.members()
        assert (first.name, first.size, first.problem) == ("ant/a.jpg", 600, ""), what
        assert rest, what
        assert all(member.problem for member in rest), what
