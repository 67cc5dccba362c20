"""Renders the demo set and writes it as a TFDS data set, with several processes."""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool

import cv2
import numpy as np
import tqdm

from pnet_jax.data import writer
from pnet_jax.data.emoji import render, sprites
from pnet_jax.errors import UserError

NAME = "emoji"
VERSION = "1.0.0"
RENDERER = 1  # to be raised with every change that alters a rendered picture
IMAGES_PER_SHARD = 2_000
SETTINGS_FILE = "settings.json"
DESCRIPTION = (
    "Emoji of Unicode, drawn by eight openly licensed sets and rendered on made-up backgrounds. "
    "Validation pictures of a class show a design family that its training pictures do not."
)


_MAIN_GUARD = (
    'Put the program that calls build() under `if __name__ == "__main__":`, or pass processes=1.'
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what the pictures are; saved beside the set."""

    image_size: int
    num_train: int
    num_validation: int
    num_classes: int
    seed: int
    renderer: int
    sprites: str

    def num_images(self, split: str) -> int:
        return {"train": self.num_train, "validation": self.num_validation}[split]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard to be written; `slots` are the numbers of its pictures in writing order."""

    path: pathlib.Path
    settings: Settings
    split: str
    slots: np.ndarray


def build(
    data_dir: str | os.PathLike[str],
    *,
    image_size: int = 64,
    num_train: int = 50_000,
    num_validation: int = 5_000,
    num_classes: int | None = None,
    seed: int = 0,
    processes: int | None = None,
) -> pathlib.Path:
    """Builds the demo set unless it is there, and returns its directory, `data_dir`/emoji/1.0.0.

    Labels are `label` (the emoji) and `coarse_label` (its subgroup in Unicode). Each class is
    equally often in each split, give or take one. A build that was interrupted goes on with the
    shards that are missing; of several builds in one place one works and the others wait for it.

    Args:
      data_dir: where data sets live.
      image_size: height and width of the pictures, in pixels.
      num_train: number of training pictures.
      num_validation: number of validation pictures.
      num_classes: take only the first classes, for a quick try; None takes all.
      seed: varies the pictures, not which drawings are held out.
      processes: how many processes render; None takes one for each core. With 1 all is done in
        this process; more are spawned, which needs the calling program's `__main__` guard.

    Raises:
      UserError: an impossible setting, or the place holds a set of other settings.
    """
    settings = _settings(
        image_size=image_size,
        num_train=num_train,
        num_validation=num_validation,
        num_classes=num_classes,
        seed=seed,
    )
    directory = pathlib.Path(data_dir) / NAME / VERSION
    if _is_built(directory, settings):
        return directory
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A spawned process runs the calling program's top level; it would wait for its parent.
        raise UserError(f"The demo set cannot be built while a process starts. {_MAIN_GUARD}")
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        if not _is_built(directory, settings):
            _build(directory, settings, processes or _num_cores())
    return directory


def label_names(num_classes: int | None = None) -> dict[str, tuple[str, ...]]:
    """The names of the first `num_classes` classes (None: of all) and of their subgroups."""
    classes = sprites.load().classes[:num_classes]
    return {
        "label": tuple(c.name for c in classes),
        "coarse_label": tuple(dict.fromkeys(c.subgroup for c in classes)),
    }


def examples(settings: Settings, split: str, slots: Sequence[int]) -> Iterator[writer.Example]:
    """Renders pictures `slots` of a split.

    Picture i depends on the seed, split, size, number of classes and i, not on how many there are.
    """
    pack = sprites.load()
    drawings = sprites.split_by_family(pack)[split]
    names = label_names(settings.num_classes)
    split_key = 0 if split == "train" else 1
    for slot in slots:
        repetition, class_index = divmod(int(slot), settings.num_classes)
        drawing = drawings[class_index][repetition % len(drawings[class_index])]
        rng = np.random.default_rng((settings.seed, split_key, int(slot)))
        picture = render.render(pack.sprite(drawing.index), settings.image_size, rng)
        emoji = pack.classes[class_index]
        yield writer.Example(
            image=render.encode_jpeg(picture),
            labels={
                "label": class_index,
                "coarse_label": names["coarse_label"].index(emoji.subgroup),
            },
            file_name=f"{emoji.code}_{drawing.set_name}_{split}{int(slot):06d}.jpg",
        )


def _settings(
    *, image_size: int, num_train: int, num_validation: int, num_classes: int | None, seed: int
) -> Settings:
    pack = sprites.load()
    if num_classes is None:
        num_classes = len(pack.classes)
    if not 1 <= num_classes <= len(pack.classes):
        raise UserError(
            f"The demo set has {len(pack.classes)} classes; num_classes={num_classes} is not "
            "possible."
        )
    if image_size < 16:
        raise UserError(f"image_size={image_size} is too small for the demo set; 16 is the least.")
    if min(num_train, num_validation) < 1:
        raise UserError(
            f"num_train={num_train} and num_validation={num_validation} must both be at least 1."
        )
    if seed < 0:
        raise UserError(f"seed={seed} must not be negative.")
    return Settings(
        image_size=image_size,
        num_train=num_train,
        num_validation=num_validation,
        num_classes=num_classes,
        seed=seed,
        renderer=RENDERER,
        sprites=pack.digest,
    )


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
    """One builder at a time; the lock goes with the process that holds it, however it ends."""
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_built(directory: pathlib.Path, settings: Settings) -> bool:
    """Whether the set is complete; raises UserError if what is there has other settings."""
    wanted = dataclasses.asdict(settings)
    try:
        found = json.loads((directory / SETTINGS_FILE).read_text())
    except FileNotFoundError:
        return False
    differing = [key for key in wanted | found if wanted.get(key) != found.get(key)]
    if differing:
        what = ", ".join(f"{key} {found.get(key)} (not {wanted.get(key)})" for key in differing)
        raise UserError(
            f"{directory} holds a demo set of other settings: {what}; delete that directory or "
            "choose another data_dir."
        )
    return writer.is_complete(directory)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what this process may use; not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _build(directory: pathlib.Path, settings: Settings, processes: int) -> None:
    """Writes the settings, the shards that are missing and the metadata, in this order."""
    writer.remove_temporaries(directory)
    temporary = directory / f".{SETTINGS_FILE}.tmp"
    temporary.write_text(json.dumps(dataclasses.asdict(settings), indent=2) + "\n")
    temporary.replace(directory / SETTINGS_FILE)
    shards = [s for split in ("train", "validation") for s in _shards(directory, settings, split)]
    infos = {s.path: info for s in shards if (info := writer.read_shard_info(s.path))}
    missing = [s for s in shards if s.path not in infos]
    with tqdm.tqdm(
        total=sum(len(s.slots) for s in shards),
        initial=sum(info.num_examples for info in infos.values()),
        desc="rendering the demo set",
        unit=" images",
        smoothing=0,
    ) as progress:
        for path, info in _write_all(missing, min(processes, len(missing))):
            infos[path] = info
            progress.update(info.num_examples)
    splits: Mapping[str, list[writer.ShardInfo]] = {"train": [], "validation": []}
    for shard in shards:
        splits[shard.split].append(infos[shard.path])
    writer.write_metadata(
        directory,
        name=NAME,
        version=VERSION,
        splits=splits,
        label_names=label_names(settings.num_classes),
        description=DESCRIPTION,
    )


def _shards(directory: pathlib.Path, settings: Settings, split: str) -> list[Shard]:
    """Cuts a split into shards of equal size (give or take one), in an order shuffled by a hash."""

    def key(slot: int) -> bytes:
        text = f"{settings.seed}/{split}/{slot}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    slots = np.array(sorted(range(settings.num_images(split)), key=key))
    num_shards = -(-len(slots) // IMAGES_PER_SHARD)
    return [
        Shard(
            writer.shard_path(
                directory, name=NAME, split=split, index=index, num_shards=num_shards
            ),
            settings,
            split,
            part,
        )
        for index, part in enumerate(np.array_split(slots, num_shards))
    ]


def _write_all(
    shards: Sequence[Shard], processes: int
) -> Iterator[tuple[pathlib.Path, writer.ShardInfo]]:
    """Writes the shards and yields each as it is done."""
    if processes <= 1:
        for shard in shards:
            yield shard.path, _write(shard)
        return
    with concurrent.futures.ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),  # a fork of a running JAX may hang
        initializer=_start_worker,
    ) as pool:
        futures = {pool.submit(_write, shard): shard for shard in shards}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future].path, future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"The processes that render the demo set ended early. {_MAIN_GUARD}"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Keeps a worker to one core, and from outliving its parent, however that ends."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _write(shard: Shard) -> writer.ShardInfo:
    pictures = examples(shard.settings, shard.split, shard.slots.tolist())
    return writer.write_shard(shard.path, pictures, label_names(shard.settings.num_classes))
