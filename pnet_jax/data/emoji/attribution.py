"""The text of ATTRIBUTION.md, from the one table of sets."""

from collections.abc import Mapping

from pnet_jax.data.emoji.sources import NAMES, SETS

_LICENCES = {
    "Apache-2.0": "[Apache License 2.0](LICENSE-Apache-2.0.txt)",
    "MIT": "[MIT](LICENSE-MIT.txt)",
    "CC-BY-4.0": "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)",
}


def attribution(drawings_per_set: Mapping[str, int]) -> str:
    """Markdown naming every set, its author, licence and package, and what was changed."""
    rows = [
        f"| [{s.title}]({s.homepage}) | {s.author} | {_LICENCES[s.licence]} "
        f"| {s.package.name} {s.package.version} | {drawings_per_set[s.name]:,} |"
        for s in SETS
    ]
    table = "\n".join(rows)
    return f"""# Where the drawings of the demo set come from

`sprites.npz` holds emoji drawings of eight sets. Each drawing stays under the licence of its set;
the code that reads them is the project's own.

| Set | Author | Licence | npm package | Drawings |
|---|---|---|---|---|
{table}

Changes made: each drawing was rasterised from SVG (the 3D set: reduced from 256 pixels) to 64x64
pixels and stored as WebP, in part with loss; a few are mirror images where their package declares
them so. The images rendered from them are rotated, scaled, recoloured and set on backgrounds. Skin
tones and flags of countries are left out. None of the authors endorses this project.

Emoji names, order, groups and subgroups (`classes.json`): {NAMES.name} {NAMES.version}, Copyright
(c) 2017-2019 Miles Johnson, [MIT](LICENSE-MIT.txt), made from the data files of Unicode, Inc.
([Unicode License v3](https://www.unicode.org/license.txt)).
"""
