"""The stream depends on (seed, position) alone, and evaluation sees every record once."""

import itertools
import logging
import multiprocessing
import os
import signal

import cv2
import numpy as np
import pytest

from pnet_jax.data.datasets import open_dataset
from pnet_jax.data.pipeline import (
    Reading,
    _GivenBackByWorker,
    eval_batches,
    num_eval_batches,
    train_batches,
)
from pnet_jax.errors import TrainingError

NUM_RECORDS = 37
SIZE = 16


@pytest.fixture
def pictures(rng) -> list[bytes]:
    """JPEGs of different shapes; number i has class i in the data set."""

    def picture(i: int) -> bytes:
        image = rng.integers(0, 256, (20 + i % 5, 24, 3), dtype=np.uint8)
        return cv2.imencode(".jpg", image)[1].tobytes()

    return [picture(i) for i in range(NUM_RECORDS)]


@pytest.fixture
def open_split(write_set):
    def open_written(images):
        data_dir = write_set({"train": images}, images_per_shard=10)
        dataset = open_dataset("toy", str(data_dir), label="label", build_demo=print)
        return dataset.split("train")

    return open_written


@pytest.fixture
def records(open_split, pictures):
    return open_split(pictures)


def reading(batch_size: int, **fields) -> Reading:
    return Reading(global_batch_size=batch_size, image_size=SIZE, **fields)


def take(records, how: Reading, count: int, *, seed: int = 0, start: int = 0, **fields) -> list:
    fields = {"area_min": 0.08, "area_max": 1.0} | fields
    batches = train_batches(records, how, seed=seed, start=start, **fields)
    return list(itertools.islice(batches, count))


def labels(batches) -> list[int]:
    return [int(label) for batch in batches for label in batch["label"]]


def assert_equal(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys() >= {"image", "label", "weight"}
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def joined(parts) -> dict[str, np.ndarray]:
    """The global batch of its processes' parts, as it comes to lie on the devices."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_shapes_and_types(records):
    (batch,) = take(records, reading(8), 1)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "image": ((8, SIZE, SIZE, 3), np.uint8),
        "label": ((8,), np.int32),
        "weight": ((8,), np.float32),
        "index": ((8,), np.int64),
    }
    for index, label in zip(batch["index"], batch["label"], strict=True):
        assert records[index].label == label
    assert (batch["weight"] == 1).all()


def test_every_record_once_an_epoch_and_epochs_differ(records):
    seen = labels(take(records, reading(1), 3 * NUM_RECORDS))
    epochs = [tuple(seen[i : i + NUM_RECORDS]) for i in range(0, len(seen), NUM_RECORDS)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_RECORDS))
    assert len({*epochs, tuple(range(NUM_RECORDS))}) == 4


def test_batches_run_over_the_end_of_an_epoch(records):
    """37 records in batches of 8: the fifth batch holds 5 of the first epoch and 3 of the next."""
    assert labels(take(records, reading(8), 10)) == labels(take(records, reading(1), 80))


def test_the_same_seed_gives_the_same_bits_and_another_another_order(records):
    first = take(records, reading(8), 10)
    assert_equal(first, take(records, reading(8), 10))
    other = take(records, reading(8), 10, seed=1)
    assert labels(first) != labels(other)


def test_a_record_is_cut_differently_in_each_epoch(records):
    images: dict[int, list[np.ndarray]] = {}
    for batch in take(records, reading(1), 2 * NUM_RECORDS):
        images.setdefault(int(batch["label"][0]), []).append(batch["image"][0])
    for first, second in images.values():
        assert (first != second).any()


@pytest.mark.parametrize("count", [1, 2])
def test_repeats_are_the_same_records_cut_differently(records, count):
    """Three of each in a batch of 12, in the order of the stream without; also from batch 2 on,
    and by two processes."""
    plain = labels(take(records, reading(4), 12))
    whole = take(records, reading(12), 12, repeats=3)
    assert labels(whole) == np.repeat(plain, 3).tolist()
    images = np.concatenate([batch["image"] for batch in whole]).reshape(48, 3, -1)
    alike = (images == np.roll(images, 1, axis=1)).all(-1)
    assert alike.mean() < 0.1  # the whole picture is one of the crops
    parts = [
        take(records, reading(12, process_index=i, process_count=count), 10, start=2, repeats=3)
        for i in range(count)
    ]
    assert_equal([joined(batches) for batches in zip(*parts, strict=True)], whole[2:])


@pytest.mark.parametrize("start", [1, 4, 5, 13])
def test_starting_at_a_batch_equals_skipping_to_it(records, start):
    """In the first epoch, in the batch that crosses into the second, and in the third."""
    whole = take(records, reading(8), start + 6)
    assert_equal(take(records, reading(8), 6, start=start), whole[start:])


@pytest.mark.parametrize("count", [2, 4])
def test_parts_of_processes_are_the_whole(records, count):
    whole = take(records, reading(8), 8, start=2)
    parts = [
        take(records, reading(8, process_index=i, process_count=count), 8, start=2)
        for i in range(count)
    ]
    assert all(len(batch["label"]) == 8 // count for part in parts for batch in part)
    assert_equal([joined(batches) for batches in zip(*parts, strict=True)], whole)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (2, 8), (8, 3), (0, 4)])
def test_threads_and_prefetching_do_not_matter(records, threads, prefetch):
    whole = take(records, reading(8), 8)
    how = reading(8, num_threads=threads, prefetch_batches=prefetch)
    assert_equal(take(records, how, 8), whole)
    expected = list(eval_batches(records, reading(8), share=0.875))
    assert_equal(list(eval_batches(records, how, share=0.875)), expected)


def test_workers_do_not_matter(records):
    """Two processes that decode: the same batches from any start, and the same evaluation."""
    whole = take(records, reading(8), 12)
    how = reading(8, num_workers=2, prefetch_batches=3)
    assert_equal(take(records, how, 8, start=3), whole[3:11])
    expected = list(eval_batches(records, reading(8), share=0.875))
    assert_equal(list(eval_batches(records, how, share=0.875)), expected)


@pytest.mark.skipif(
    not os.path.isdir("/dev/shm"), reason="Linux alone shows shared memory as files"
)
def test_a_worker_gives_memory_back_once_the_main_process_has_let_go(rng):
    share = _GivenBackByWorker()
    batches = [{"image": rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)} for _ in range(3)]
    first, second, third = [share(batch)["image"] for batch in batches]
    np.testing.assert_array_equal(first, batches[0]["image"])
    assert len(share._open) == 3
    second.metadata.close_and_unlink_shm()
    (removed,) = [file for file in share._open if os.fstat(file).st_nlink == 0]
    last = share(batches[0])["image"]
    assert len(share._open) == 3
    assert os.path.samestat(os.fstat(share._open[-1]), os.stat(f"/dev/shm/{last.metadata.name}"))
    assert removed not in share._open[:-1]
    for images in (first, third, last):
        images.metadata.close_and_unlink_shm()


def test_a_killed_worker_is_one_sentence(records):
    batches = train_batches(
        records, reading(8, num_workers=1), seed=0, start=0, area_min=0.08, area_max=1.0
    )
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match="A decoding process was killed"):
        list(itertools.islice(batches, 20))


def test_stopped_and_continued_with_other_numbers_of_processes_and_workers(records):
    """1, 2, 4 hosts, the last with workers, over the end of an epoch (the fifth batch)."""
    whole = take(records, reading(8), 12)
    ours = take(records, reading(8), 3)
    for count, start, workers in ((2, 3, 0), (4, 6, 1)):
        parts = [
            take(
                records,
                reading(8, process_index=i, process_count=count, num_workers=workers),
                3,
                start=start,
            )
            for i in range(count)
        ]
        ours += [joined(batches) for batches in zip(*parts, strict=True)]
    ours += take(records, reading(8), 3, start=9)
    assert_equal(ours, whole)


def test_a_batch_may_be_larger_than_the_split(records):
    seen = labels(take(records, reading(100), 1))
    assert sorted(seen[:NUM_RECORDS]) == sorted(seen[NUM_RECORDS : 2 * NUM_RECORDS])


def test_a_corrupt_training_image_is_named_and_weighs_nothing(open_split, pictures, caplog):
    pictures[11] = pictures[11][:-40]
    records = open_split(pictures)
    with caplog.at_level(logging.WARNING):
        batches = take(records, reading(NUM_RECORDS), 1)
    # The batches that are prepared ahead hold it, too.
    assert {record.getMessage() for record in caplog.records} == {
        "corrupt image, skipped: train_11.jpg"
    }
    (batch,) = batches
    bad = batch["label"] == 11
    np.testing.assert_array_equal(batch["weight"], np.where(bad, 0, 1).astype(np.float32))
    assert (batch["image"][bad] == 0).all()
    assert all(image.any() for image in batch["image"][~bad])


@pytest.mark.parametrize("batch_size", [1, 8, 37, 64])
def test_evaluation_sees_every_record_once_in_order(records, batch_size):
    batches = list(eval_batches(records, reading(batch_size), share=0.875))
    assert len(batches) == num_eval_batches(NUM_RECORDS, batch_size) == -(-37 // batch_size)
    assert all(batch["image"].shape == (batch_size, SIZE, SIZE, 3) for batch in batches)
    weights = np.concatenate([batch["weight"] for batch in batches])
    num_filled = len(batches) * batch_size - NUM_RECORDS
    np.testing.assert_array_equal(weights, [1] * NUM_RECORDS + [0] * num_filled)
    assert labels(batches) == [*range(NUM_RECORDS), *[-1] * num_filled]
    filled = np.concatenate([batch["image"] for batch in batches])[NUM_RECORDS:]
    assert not filled.any()


def test_evaluation_takes_the_central_crop(open_split):
    rows, columns = np.mgrid[:32, :40]
    ramp = np.dstack([columns * 4, rows * 4, rows * 0]).astype(np.uint8)
    encoded = cv2.imencode(".jpg", ramp, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    how = Reading(global_batch_size=1, image_size=16)
    (batch,) = eval_batches(open_split([encoded]), how, share=0.5)
    image = batch["image"][0].astype(int)
    # BGR when written, RGB when read: rows in the middle channel, columns in the last.
    assert np.abs(image[:, 0, 1] - 4 * np.arange(8, 24)).max() <= 4
    assert np.abs(image[0, :, 2] - 4 * np.arange(12, 28)).max() <= 4


@pytest.mark.parametrize("count", [2, 4])
def test_evaluation_by_several_processes(records, count):
    """Each has the same number of batches, and together they see every record once."""
    parts = [
        list(eval_batches(records, reading(8, process_index=i, process_count=count), share=0.875))
        for i in range(count)
    ]
    assert [len(part) for part in parts] == [5] * count
    real = [
        int(label)
        for part in parts
        for batch in part
        for label, weight in zip(batch["label"], batch["weight"], strict=True)
        if weight == 1
    ]
    assert sorted(real) == list(range(NUM_RECORDS))


def test_a_corrupt_evaluation_image_counts_as_wrong(open_split, pictures, caplog):
    pictures[5] = pictures[5][:100]
    with caplog.at_level(logging.WARNING):
        (batch,) = eval_batches(open_split(pictures), reading(40), share=0.875)
    assert [record.getMessage() for record in caplog.records] == [
        "corrupt image, skipped: train_5.jpg"
    ]
    assert (batch["label"][5], batch["weight"][5]) == (-1, 1)
    assert batch["weight"].sum() == NUM_RECORDS
