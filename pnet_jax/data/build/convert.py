"""The conversion: index, order, verify, write whole shards; to be killed and started at will."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator

import tqdm

from pnet_jax.data import writer
from pnet_jax.data.build import hierarchy, manifest, sources, workers
from pnet_jax.data.build.classes import NUM_IMAGES, class_names
from pnet_jax.data.build.files import Files
from pnet_jax.data.build.index import Index, create
from pnet_jax.data.build.manifest import ShardReport
from pnet_jax.data.build.verify_image import MAX_BYTES, check
from pnet_jax.errors import UserError

VERSION = "1.0.0"
WORK = ".build"
_RESIZED_BYTES = 50_000  # at most what a picture of 256 pixels takes on average


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what is written, but the number of processes."""

    source: str
    classes: str
    name: str
    shards: int = 1024
    resize_short: int | None = None
    val_per_class: int = 0
    validation_source: str | None = None
    validation_labels: str | None = None

    def validate(self) -> None:
        """Raises UserError for what no set can have."""
        if self.shards < 1 or self.val_per_class < 0:
            raise UserError("--shards must be at least 1 and --val-per-class at least 0.")
        if self.resize_short is not None and self.resize_short < 8:
            raise UserError(f"--resize-short={self.resize_short} must be at least 8 pixels.")
        if self.val_per_class and self.validation_source:
            raise UserError("Give --val-per-class or --validation-source, not both.")
        if self.validation_labels and not self.validation_source:
            raise UserError("--validation-labels belongs to --validation-source; give both.")


@dataclasses.dataclass(frozen=True)
class _Shard:
    directory: str
    path: str
    split: str
    start: int
    stop: int
    resize_short: int | None
    label_names: tuple[str, ...]

    @property
    def report_path(self) -> pathlib.Path:
        return pathlib.Path(self.directory, WORK, pathlib.Path(self.path).name + ".json")


def build(settings: Settings, data_dir: pathlib.Path, *, processes: int = 1) -> pathlib.Path:
    """Builds a set unless it is there, and returns its directory, `data_dir`/NAME/1.0.0.

    A build that was interrupted goes on with the shards that are missing.

    Raises:
      UserError: an impossible setting, an unusable source, too little disk, or another set there.
    """
    settings.validate()
    names = class_names(settings.classes)
    directory = data_dir.expanduser() / settings.name / VERSION
    (directory / WORK).mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        _claim(directory, settings, names)
        if not (writer.is_complete(directory) and (directory / manifest.FILE).exists()):
            _build(directory, settings, names, processes)
        shutil.rmtree(directory / WORK, ignore_errors=True)
    return directory


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
    """One builder at a time; the lock goes with the process that holds it, however it ends."""
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _claim(directory: pathlib.Path, settings: Settings, names: tuple[str, ...]) -> None:
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    wanted = dataclasses.asdict(settings) | {"classes_sha256": digest}
    path = directory / "settings.json"
    if not path.exists():
        manifest.write_json(path, wanted)
        return
    found = json.loads(path.read_text())
    if differing := [key for key in wanted if wanted[key] != found.get(key)]:
        what = ", ".join(f"{key} {found.get(key)!r} (not {wanted[key]!r})" for key in differing)
        raise UserError(
            f"{directory} holds a set of other settings: {what}; take those, or another --name."
        )


def _build(
    directory: pathlib.Path, settings: Settings, names: tuple[str, ...], processes: int
) -> None:
    work = directory / WORK
    for temporary in directory.glob(".*.tmp"):  # of shards and of the files beside them
        temporary.unlink()
    unexpected = _index(work, settings, names, processes)
    index = Index(work / "index.sqlite")
    present = index.classes()
    missing = [name for i, name in enumerate(names) if i not in present]
    _say(f"{len(index):,} files of {len(present):,} of {len(names):,} classes")
    if missing:
        _say(f"warning: {len(missing):,} classes have no file: {', '.join(missing[:5])} ...")
    if unexpected:
        _say(
            f"warning: left out, not in the list: {len(unexpected):,} classes, {unexpected[0]} ..."
        )
    found = index.count("train") + (settings.val_per_class > 0) * index.count("validation")
    if (stated := NUM_IMAGES.get(settings.classes, found)) != found:
        _say(f"warning: {settings.classes} has {stated:,} training images, here are {found:,}")
    if not index.count("train"):
        raise UserError(f"{settings.source} holds no files; is it the right folder?")
    shards = _shards(directory, settings, names, index)
    reports = {s.path: r for s in shards if (r := _finished(s))}
    _check_space(directory, settings, index, sum(r.num_bytes for r in reports.values()))
    waiting = [s for s in shards if s.path not in reports]
    done = sum(r.seen for r in reports.values())
    with tqdm.tqdm(
        total=len(index), initial=done, desc=f"building {settings.name}", unit=" images"
    ) as progress:
        by_path = {s.path: s for s in shards}
        advance = lambda count: progress.update(done + count - progress.n)  # noqa: E731
        for path, report in workers.run(_write, waiting, processes, advance):
            reports[by_path[path].path] = report
    splits: dict[str, list[ShardReport]] = {}
    for shard in shards:
        splits.setdefault(shard.split, []).append(reports[shard.path])
    entries = {split: manifest.split_entry(parts) for split, parts in splits.items()}
    manifest.write_json(
        directory / manifest.FILE,
        {
            "name": settings.name,
            "version": VERSION,
            "classes": {"listed": len(names), "missing": missing, "unexpected": unexpected},
            "splits": entries,
        },
    )
    if parents := hierarchy.hypernyms(names):
        manifest.write_json(directory / hierarchy.FILE, parents)
    writer.write_metadata(
        directory,
        name=settings.name,
        version=VERSION,
        splits={
            split: [writer.ShardInfo(r.num_examples, r.num_bytes) for r in parts]
            for split, parts in splits.items()
        },
        label_names={"label": names},
        description=f"Built by pnet_jax from {settings.classes}; see {manifest.FILE}.",
    )
    for split, entry in entries.items():
        _say(
            f"{split}: {entry['seen']:,} seen = {entry['accepted']:,} accepted + "
            f"{entry['reencoded']:,} re-encoded + {entry['rejected']:,} rejected"
        )


def _index(
    work: pathlib.Path, settings: Settings, names: tuple[str, ...], processes: int
) -> list[str]:
    """Makes the index unless it is there, and returns the classes that the list lacks."""
    listed = work / "unexpected.json"
    if not (work / "index.sqlite").exists():
        spool = work / "unpacked"
        source = pathlib.Path(settings.source).expanduser()
        found = {"train": sources.find(source, names, labels=None, spool=spool / "train")}
        if settings.validation_source:
            found["validation"] = sources.find(
                pathlib.Path(settings.validation_source).expanduser(),
                names,
                labels=pathlib.Path(settings.validation_labels).expanduser()
                if settings.validation_labels
                else None,
                spool=spool / "validation",
            )
        manifest.write_json(listed, sorted({c for f in found.values() for c in f.unexpected}))
        total = sum(len(f.units) for f in found.values())
        with tqdm.tqdm(total=total, desc="reading what there is", unit=" parts") as progress:
            create(
                work / "index.sqlite",
                {split: f.units for split, f in found.items()},
                names,
                val_per_class=settings.val_per_class,
                processes=processes,
                on_unit=progress.update,
            )
    unexpected: list[str] = json.loads(listed.read_text())
    return unexpected


def _shards(
    directory: pathlib.Path, settings: Settings, names: tuple[str, ...], index: Index
) -> list[_Shard]:
    """Cuts the splits into shards of equal size, give or take one; fewer than asked if small."""
    shards = []
    train = index.count("train")
    for split in ("train", "validation"):
        total = index.count(split)
        number = min(total, max(1, round(settings.shards * total / train)))
        for i in range(number):
            path = writer.shard_path(
                directory, name=settings.name, split=split, index=i, num_shards=number
            )
            bounds = (total * i // number, total * (i + 1) // number)
            shards.append(
                _Shard(str(directory), str(path), split, *bounds, settings.resize_short, names)
            )
    return shards


def _finished(shard: _Shard) -> ShardReport | None:
    """The report of a shard written before: it comes after its shard, so both are whole."""
    path = pathlib.Path(shard.path)
    if not (shard.report_path.exists() and path.exists()):
        return None
    report = ShardReport(**json.loads(shard.report_path.read_text()))
    return report if path.stat().st_size == report.num_bytes else None


def _check_space(directory: pathlib.Path, settings: Settings, index: Index, written: int) -> None:
    needed = index.num_bytes() + 200 * len(index)
    if settings.resize_short:
        scale = (settings.resize_short / 256) ** 2
        needed = min(needed, int(_RESIZED_BYTES * scale * len(index)))
    needed = int(needed * 1.02) - written
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"The set takes about {needed / 1e9:,.1f} GB more, but {directory} has "
            f"{free / 1e9:,.1f} GB free; choose another --data-dir, or --resize-short=256."
        )


def _write(shard: _Shard, status: workers.Status) -> tuple[str, ShardReport]:
    """The work of one process: one shard, and after it its report."""
    files = Files()
    accepted = resized = 0
    reencoded: list[dict[str, str]] = []
    rejected: list[dict[str, str]] = []

    def examples() -> Iterator[writer.Example]:
        nonlocal accepted, resized
        index = Index(pathlib.Path(shard.directory, WORK, "index.sqlite"))
        for slot in index.slots(shard.split, shard.start, shard.stop):
            status.begin(f"{slot.name} in {slot.path}")
            image, reason = None, slot.problem
            if not reason and slot.size > MAX_BYTES:
                reason = f"over {MAX_BYTES >> 20} MiB"
            elif not reason:
                checked = check(files.read(slot), shard.resize_short)
                image, reason = checked.image, checked.reason
            class_name = "" if slot.label is None else shard.label_names[slot.label]
            note = {"file": slot.name, "class": class_name, "reason": reason}
            if image is None or slot.label is None:
                rejected.append(note)
                continue
            if reason == "resized":
                resized += 1
            elif reason:
                reencoded.append(note)
            else:
                accepted += 1
            yield writer.Example(image, {"label": slot.label}, slot.name)

    path = pathlib.Path(shard.path)
    try:
        info = writer.write_shard(path, examples(), {"label": shard.label_names})
    finally:
        files.close()
    report = ShardReport(
        file=path.name,
        seen=shard.stop - shard.start,
        accepted=accepted,
        resized=resized,
        num_bytes=info.num_bytes,
        sha256=manifest.sha256(path),
        reencoded=reencoded,
        rejected=rejected,
    )
    manifest.write_json(shard.report_path, dataclasses.asdict(report))
    return shard.path, report


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
