"""The hypernyms of classes."""

from pnet_jax.data.build.classes import RELEASES, class_names
from pnet_jax.data.build.hierarchy import hypernyms

ENTITY = "n00001740"


def test_a_known_line():
    """Tench is a cyprinid, ... a fish, an animal, an organism, ... an entity."""
    parents = hypernyms(["n01440764"])
    line = ["n01440764"]
    while parents[line[-1]]:
        line.append(parents[line[-1]][0])
    assert line[-1] == ENTITY
    assert {"n01439121", "n02512053", "n00015388", "n00004475"} <= set(line)
    assert set(parents) >= set(line)


def test_every_class_of_every_release_leads_to_the_root():
    names = {name for release in RELEASES for name in class_names(release)}
    parents = hypernyms(names)
    assert len(parents) == 23_547
    assert parents.keys() >= names
    assert [wnid for wnid, above in parents.items() if not above] == [ENTITY]
    assert {each for above in parents.values() for each in above} <= parents.keys()
    assert sum(len(above) > 1 for above in parents.values()) == 498


def test_other_classes_have_none():
    assert hypernyms(["cat", "n99999999"]) == {}
