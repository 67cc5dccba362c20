"""A small tree of synset tars with everything that real and hostile releases have in them."""

import io
import pathlib
import tarfile

import cv2
import numpy as np
from PIL import Image

from pnet_jax.data.build.classes import class_names


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """`[height, width, 3]` uint8, smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(seed: int, form: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture as a file of a Pillow format and mode."""
    out = io.BytesIO()
    Image.fromarray(picture(seed)).convert(mode).save(out, form)
    return out.getvalue()


def tiny() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, "JPEG")
    return out.getvalue()


# In the first tar, besides plain pictures: name -> bytes and the reason's beginning; an empty
# reason is kept as it is.
def oddities() -> dict[str, tuple[bytes, str]]:
    jpeg = encoded(999)
    return {
        "gray.JPEG": (encoded(1, mode="L"), ""),
        "ünïcode 名.JPEG": (encoded(2), ""),
        "deep/er/x.JPEG": (encoded(3), ""),
        "same_bytes.JPEG": (encoded(3), ""),
        "cmyk.JPEG": (encoded(4, mode="CMYK"), "JPEG CMYK"),
        "png.JPEG": (encoded(5, "PNG"), "PNG RGB"),
        "gif.JPEG": (encoded(6, "GIF", "P"), "GIF "),
        "webp.JPEG": (encoded(7, "WEBP"), "WEBP RGB"),
        "cut.JPEG": (jpeg[: len(jpeg) // 2], "rejected"),
        "no_end.JPEG": (jpeg[:-2], "rejected"),
        "cut_png.JPEG": (encoded(8, "PNG")[:-60], "rejected"),
        "empty.JPEG": (b"", "rejected"),
        "tiny.JPEG": (tiny(), "rejected"),
        "text.JPEG": (b"<html>not found</html>", "rejected"),
    }


HOSTILE = ("../../escape.JPEG", "/etc/absolute.JPEG", "link.JPEG", "hard.JPEG", "device.JPEG")


def write_tree(folder: pathlib.Path, *, tars: int, images: int) -> tuple[str, ...]:
    """Writes tars of the first fall11 classes; returns their names and one that has no tar."""
    names = class_names("fall11")[: tars + 1]
    folder.mkdir(parents=True)
    for i, name in enumerate(names[:-1]):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:

            def add(
                file: str, content: bytes, tar: tarfile.TarFile = tar, **fields: object
            ) -> None:
                member = tarfile.TarInfo(file)
                member.size = len(content)
                for field, value in fields.items():
                    setattr(member, field, value)
                tar.addfile(member, io.BytesIO(content))

            for k in range(images):
                add(f"{name}_{k}.JPEG", encoded(1000 * i + k))
            if i == 0:
                for file, (content, _) in oddities().items():
                    add(file, content)
                add(f"{name}_0.JPEG", encoded(12345))  # the name a second time
                add(HOSTILE[0], encoded(1))
                add(HOSTILE[1], encoded(1))
                add(HOSTILE[2], b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
                add(HOSTILE[3], b"", type=tarfile.LNKTYPE, linkname="gray.JPEG")
                add(HOSTILE[4], b"", type=tarfile.CHRTYPE)
    (folder / "n99999999.tar").write_bytes((folder / f"{names[0]}.tar").read_bytes())
    return names
