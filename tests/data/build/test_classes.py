"""The releases have the published numbers of classes, in the order of the wnids."""

import pytest

from pnet_jax.data.build.classes import RELEASES, class_names
from pnet_jax.errors import UserError


@pytest.mark.parametrize("release", RELEASES)
def test_counts_and_order(release):
    names = class_names(release)
    assert len(names) == len(set(names)) == RELEASES[release]
    assert list(names) == sorted(names)
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdecimal() for name in names)


def test_known_places():
    assert class_names("1k")[:2] == ("n01440764", "n01443537")
    assert class_names("fall11")[0] == "n00004475"
    assert set(class_names("1k")) - set(class_names("fall11")) == {"n04399382"}


def test_a_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("zebra\n\nant\n")
    assert class_names(str(path)) == ("zebra", "ant")
    path.write_text("ant\nant\n")
    with pytest.raises(UserError, match="'ant' more than once"):
        class_names(str(path))
    with pytest.raises(UserError, match="neither a release"):
        class_names("fall12")
