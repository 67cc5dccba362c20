"""The eight emoji sets of the demo data, pinned: where from, whose, under which licence."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Package:
    """An npm package at one version; `sha512` is its tarball's digest in base64."""

    name: str
    version: str
    sha512: str


@dataclasses.dataclass(frozen=True)
class EmojiSet:
    """One set of drawings.

    Attributes:
      name: the set's name in this project.
      family: the design team. Sets of one family share their designs, so a class's family is
        wholly in training or wholly in validation.
      title: the set's own name.
      author: who holds the copyright of the drawings.
      licence: SPDX identifier of the drawings' licence.
      homepage: where the drawings are developed.
      package: the npm package the drawings are taken from.
    """

    name: str
    family: str
    title: str
    author: str
    licence: str
    homepage: str
    package: Package


SETS: tuple[EmojiSet, ...] = (
    EmojiSet(
        name="noto",
        family="google",
        title="Noto Emoji",
        author="Google LLC",
        licence="Apache-2.0",
        homepage="https://github.com/googlefonts/noto-emoji",
        package=Package(
            "@iconify-json/noto",
            "1.2.9",
            "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jf"
            "rTAeI3rcKF0mqHYeZVAuaw==",
        ),
    ),
    EmojiSet(
        name="noto_v1",
        family="google",
        title="Noto Emoji, first version",
        author="Google LLC",
        licence="Apache-2.0",
        homepage="https://github.com/googlefonts/noto-emoji",
        package=Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHH"
            "b/XpBsw+1L1x3eyPqMuVA==",
        ),
    ),
    EmojiSet(
        name="twemoji",
        family="twemoji",
        title="Twemoji",
        author="Twitter, Inc and other contributors",
        licence="CC-BY-4.0",
        homepage="https://github.com/jdecked/twemoji",
        package=Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXz"
            "AWU9yNLlj41WU6/mvgALsw==",
        ),
    ),
    EmojiSet(
        name="fluent_flat",
        family="fluent",
        title="Fluent Emoji, flat",
        author="Microsoft Corporation",
        licence="MIT",
        homepage="https://github.com/microsoft/fluentui-emoji",
        package=Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7"
            "yNGWqQYvuaSYM1M4fRXlUw==",
        ),
    ),
    EmojiSet(
        name="fluent_color",
        family="fluent",
        title="Fluent Emoji, colour",
        author="Microsoft Corporation",
        licence="MIT",
        homepage="https://github.com/microsoft/fluentui-emoji",
        package=Package(
            "@iconify-json/fluent-emoji",
            "1.2.7",
            "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUc"
            "agzJvSyg+9OBv4hz4Hc/QA==",
        ),
    ),
    EmojiSet(
        name="fluent_3d",
        family="fluent",
        title="Fluent Emoji, 3D",
        author="Microsoft Corporation (packaged by LobeHub)",
        licence="MIT",
        homepage="https://github.com/microsoft/fluentui-emoji",
        package=Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ"
            "2Qaecgl5wRBv60lUAG3h7g==",
        ),
    ),
    EmojiSet(
        name="emojione",
        family="emojione",
        title="EmojiOne 2.3",
        author="EmojiOne, contributors of EmojiTwo",
        licence="CC-BY-4.0",
        homepage="https://github.com/EmojiTwo/emojitwo",
        package=Package(
            "@iconify-json/emojione",
            "1.2.3",
            "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8"
            "cCv7w5vJxS4Q1m8zb9CMMg==",
        ),
    ),
    EmojiSet(
        name="fxemoji",
        family="fxemoji",
        title="FxEmojis (Firefox OS)",
        author="Mozilla Foundation",
        licence="Apache-2.0",
        homepage="https://github.com/mozilla/fxemoji",
        package=Package(
            "@iconify-json/fxemoji",
            "1.2.2",
            "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBr"
            "eXuMQyAifr5jP4kn78DpiQ==",
        ),
    ),
)

# Names, order, groups and subgroups of the emoji (Unicode's, as JSON; MIT).
NAMES = Package(
    "emojibase-data",
    "16.0.3",
    "MopInVCDZeXvqBMPJxnvYUyKw9ImJZqIDr2sABo6acVSPev5IDYX+mf+0tsu96JJyc3INNvgIf06Eso7bdTX2Q==",
)

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(s.family for s in SETS))
