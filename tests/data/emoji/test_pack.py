"""The packing script, on sets made up for the test."""

import base64
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from pnet_jax.data.emoji.sources import Package

pack = pytest.importorskip("pnet_jax.data.emoji.pack", exc_type=ImportError)

RED = '<rect width="32" height="64" fill="#f00"/>'
BLUE = '<circle cx="32" cy="32" r="20" fill="#00f"/>'


def emoji(code: str, name: str, *names: str) -> "pack.Emoji":
    return pack.Emoji({"hexcode": code, "label": name}, names, "")


def iconify(icons, chars=None, aliases=None, *, dashes=True):
    files = {
        "icons.json": json.dumps(
            {
                "icons": {name: {"body": body} for name, body in icons.items()},
                "aliases": aliases or {},
                "width": 64,
                "height": 64,
            }
        ).encode(),
        "chars.json": json.dumps(chars or {}).encode(),
    }
    return pack.IconifyPackage(files, dashes=dashes)


def test_codes_and_names_in_one_spelling():
    assert pack.code_key("0023-FE0F-20E3") == "23-20e3"
    assert pack.slug("Mrs. Claus") == "mrs-claus"
    assert pack.slug("woman’s hat") == "womans-hat"
    assert pack.slug("piñata") == "pinata"


def test_finds_by_code_points_else_by_name():
    by_code = iconify({"smile": RED}, {"1f600": "smile"})
    assert by_code.find(emoji("1F600", "grinning face")) == "smile"
    assert by_code.find(emoji("1F601", "smile")) is None
    by_name = iconify({"toptooth": RED}, dashes=False)
    assert by_name.find(emoji("1F600", "anything", "top-tooth")) == "toptooth"
    assert by_name.find(emoji("1F600", "anything")) is None


def test_draws_svg_and_mirrors_an_alias():
    source = iconify({"left": RED}, aliases={"right": {"parent": "left", "hFlip": True}})
    left, right = (np.asarray(source.draw(name)) for name in ("left", "right"))
    assert left.shape == (64, 64, 4)
    assert (left[:, :32] == (255, 0, 0, 255)).all()
    assert (left[:, 32:, 3] == 0).all()
    assert np.array_equal(left[:, ::-1], right)


def test_keeps_classes_with_five_drawings_of_their_own():
    shared = {"a": RED, "b": RED}  # one picture for two classes says nothing of either
    own = {"a": RED, "b": BLUE}
    everything = [emoji("a", "a"), emoji("b", "b")]
    names = ("noto", "twemoji", "fluent_flat", "emojione", "fxemoji")
    sources = {name: iconify(own) for name in names}
    assert list(pack.draw_all(everything, sources)) == ["a", "b"]
    assert pack.draw_all(everything, {**sources, "noto": iconify(shared)}) == {}
    assert list(pack.draw_all(everything, {**sources, "noto": iconify({"a": RED})})) == ["a"]


def test_webp_keeps_a_flat_drawing_exactly():
    picture = iconify({"x": RED}).draw("x")
    decoded = Image.open(io.BytesIO(pack.encode(picture))).convert("RGBA")
    assert decoded.tobytes() == picture.tobytes()


def test_a_tarball_that_is_not_the_pinned_one_is_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("package/icons.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    data = buffer.getvalue()
    (tmp_path / "scope-set-1.0.0.tgz").write_bytes(data)
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    pinned = Package("@scope/set", "1.0.0", digest)
    assert pack.fetch(pinned, tmp_path) == {"icons.json": b"{}"}
    with pytest.raises(ValueError, match=r"is not the pinned @scope/set 1\.0\.0"):
        pack.fetch(Package("@scope/set", "1.0.0", "A" + digest[1:-1] + "="), tmp_path)
