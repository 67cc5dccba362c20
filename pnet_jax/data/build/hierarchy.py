"""What classes are kinds of: the hypernyms of WordNet 3.0, for semantic targets."""

import functools
import gzip
import importlib.resources
from collections.abc import Iterable

FILE = "hypernyms.json"


@functools.cache
def _table() -> dict[str, tuple[str, ...]]:
    file = importlib.resources.files("pnet_jax.data.build") / "hypernyms.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    return {wnid: tuple(parents) for wnid, *parents in (line.split() for line in lines)}


def hypernyms(class_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Each class's parents, their parents and so on up to n00001740, entity, which has none.

    Five hundred synsets have more than one parent. Classes that are no wnids of a release of
    ImageNet are left out; of other sets, nothing comes out.
    """
    table, found = _table(), dict[str, tuple[str, ...]]()
    waiting = [name for name in class_names if name in table]
    while waiting:
        wnid = waiting.pop()
        if wnid not in found:
            found[wnid] = table[wnid]
            waiting += table[wnid]
    return dict(sorted(found.items()))
