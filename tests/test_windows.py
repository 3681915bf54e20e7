"""Windows as batches: the right samples, the right subject, no montage mixed with another."""

import multiprocessing
import pickle
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from codebrain.data.codes import CodeFiles
from codebrain.data.format import Store, dequantise
from codebrain.data.integrity import require_whole
from codebrain.data.subjects import SplitConfig, _drawn, split_subjects
from codebrain.data.windows import Request, WindowDataset
from codebrain.training.sampling import StepRequests, eval_batches, train_loader
from tests.conftest import write_toy_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    folder = tmp_path_factory.mktemp("stores")
    long = write_toy_store(folder / "long", classes=("rest", "task"))
    short = write_toy_store(folder / "short", n_subjects=2, seconds=2, ch_names=("C3", "Cz", "C4"), classes=("a", "b"))
    return [long, short]


@pytest.fixture
def dataset(stores: list[Store]) -> WindowDataset:
    return WindowDataset(stores)


def test_every_window_is_found(dataset: WindowDataset, stores: list[Store]) -> None:
    assert len(dataset) == 60 + 24
    assert [str(montage) for montage in dataset.montages] == ["6 channels x 800 samples", "3 channels x 400 samples"]
    assert dataset.group_sizes() == [60, 24]
    number = 0
    for store in stores:
        for shard in store.shards:
            with h5py.File(store.path / shard.file) as h5:
                expected = dequantise(h5["windows"][:], h5["scale"][:])
                batch = dataset[Request(np.arange(number, number + shard.n))]
                np.testing.assert_array_equal(batch.x.numpy(), expected)
                assert batch.label.tolist() == h5["label"][:].tolist()
            assert batch.ch_names == shard.ch_names
            assert set(dataset.subjects(batch.window)) == {store.recordings[shard.runs[0][0]].subject}
            number += shard.n


def test_a_batch_keeps_the_order_that_was_asked_for(dataset: WindowDataset) -> None:
    order = np.array([40, 3, 59, 3, 12])
    batch = dataset[Request(order)]
    assert batch.window.tolist() == order.tolist()
    for place, window in enumerate(order):
        assert torch.equal(batch.x[place], dataset[Request(np.array([window]))].x[0])


def test_subset_and_subjects(dataset: WindowDataset) -> None:
    some = dataset.subset([5, 6, 7, 30, 61])
    assert some.ids().tolist() == [5, 6, 7, 30, 61]
    assert some.group_sizes() == [4, 1]
    assert some.subjects().tolist() == ["s0", "s0", "s0", "s2", "s0"]
    # s0 is in both stores and is the same person to a split.
    assert dataset.of_subjects(["s0"]).group_sizes() == [12, 12]
    assert some.of_subjects(["s0"]).ids().tolist() == [5, 6, 7, 61]
    with pytest.raises(ValueError, match="not in this dataset"):
        some.subset([8])


def test_labels_and_starts_follow_the_windows(dataset: WindowDataset) -> None:
    windows = [2, 14, 70]
    labels = [int(dataset[Request(np.array([window]))].label) for window in windows]
    assert dataset.labels(windows).tolist() == labels
    assert dataset.starts([2, 14]).tolist() == [8.0, 8.0]


def test_no_subject_on_both_sides(dataset: WindowDataset) -> None:
    train, valid = split_subjects(dataset, SplitConfig(valid_fraction=0.4))
    assert not set(train.subject_names) & set(valid.subject_names)
    assert len(train) + len(valid) == len(dataset)
    _, named = split_subjects(dataset, SplitConfig(valid_subjects=["s3", "s[01]"]))
    assert named.subject_names == ("s0", "s1", "s3")


def test_a_subject_keeps_its_side_when_others_are_added() -> None:
    config = SplitConfig(valid_fraction=0.3)
    few, many = [f"s{i}" for i in range(20)], [f"s{i}" for i in range(60)]
    assert _drawn(few, config) == _drawn(many, config) & set(few)
    assert len(_drawn(["alone"], SplitConfig(valid_fraction=0.01))) == 1
    assert len(_drawn([f"s{i}" for i in range(1000)], config)) == pytest.approx(300, abs=60)


def test_rows_are_found_by_number_not_by_place(tmp_path: Path) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=3)
    path = store.path / "recordings.csv"
    head, first, *others = path.read_text().splitlines()
    path.write_text("\n".join([head, *others[::-1], first]) + "\n")
    assert WindowDataset([store.path]).subjects([0, 12, 24]).tolist() == ["s0", "s1", "s2"]


def test_stores_of_different_rates_make_no_dataset(tmp_path: Path) -> None:
    stores = [write_toy_store(tmp_path / f"{rate:g}", n_subjects=1, sfreq=rate) for rate in (200.0, 256.0)]
    with pytest.raises(ValueError, match=r"sampled at 200 and 256 Hz.*--clean\.sfreq"):
        WindowDataset(stores)


def test_a_corpus_and_a_task_store_train_together(tmp_path: Path) -> None:
    labelled = write_toy_store(tmp_path / "task", n_subjects=1, classes=("a", "b"))
    dataset = WindowDataset([labelled, write_toy_store(tmp_path / "corpus", n_subjects=1)])
    assert dataset[Request(np.array([0, 12]))].label is None
    assert dataset[Request(np.array([0, 1]))].label is not None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(valid_subjects=["s9"]), "no subject matches 's9'"),
        (SplitConfig(valid_subjects=["*"]), "leaves 0 to train on"),
        (SplitConfig(valid_fraction=1.5), "between 0 and 1"),
    ],
)
def test_impossible_splits(dataset: WindowDataset, config: SplitConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_subjects(dataset, config)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=2)
    path = store.path / store.shards[1].file
    path.write_bytes(path.read_bytes()[: 6 * 2 * 800 * 3])
    with pytest.raises(ValueError, match=r"rec-001.h5 \(s1.edf\) cannot be read"):
        WindowDataset([store])[Request(np.array([13]))]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), r"shards/rec-001.h5 is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"shards/rec-001.h5 has \d+ of its \d+ bytes"),
        (lambda path: path.write_bytes(b""), r"shards/rec-001.h5 is no HDF5 file"),
        (lambda path: h5py.File(path, "w").close(), r"shards/rec-001.h5 was rewritten by another program"),
    ],
    ids=["missing", "cut short", "empty", "another program's"],
)
def test_shards_that_cannot_be_used_are_found_before_work(tmp_path: Path, damage, said: str) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=3)
    require_whole(store)
    damage(store.path / store.shards[1].file)
    with pytest.raises(ValueError, match=rf"1 of 3 shards cannot be used \({said}\)\. Delete.*same codebrain-prep"):
        require_whole(store)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=2, classes=("a", "b"))
    path = store.path / store.shards[1].file
    path.unlink()
    with pytest.raises(ValueError, match=r"\(s1.edf\) cannot be read \(it is missing\).*same codebrain-prep command"):
        WindowDataset([store])[Request(np.array([13]))]
    with pytest.raises(ValueError, match=rf"{path} cannot be read \(it is missing\)"):
        WindowDataset([store]).labels()


def test_a_shard_that_was_rewritten_is_refused(tmp_path: Path) -> None:
    """Windows are read as the raw bytes of their chunks, which compression or other chunks would turn into noise."""
    store = write_toy_store(tmp_path / "store", n_subjects=1)
    with h5py.File(store.path / store.shards[0].file, "a") as h5:
        windows = h5["windows"][:]
        del h5["windows"]
        h5.create_dataset("windows", data=windows, chunks=(1, *windows.shape[1:]), compression="gzip")
    with pytest.raises(ValueError, match="rewritten"):
        WindowDataset([store])[Request(np.array([0]))]


def test_handles_do_not_travel(dataset: WindowDataset) -> None:
    first = dataset[Request(np.array([1]))].x
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[Request(np.array([1]))].x, first)


def test_worker_processes_give_the_same_batches(stores: list[Store]) -> None:
    dataset = WindowDataset(stores)
    requests = StepRequests(dataset, batch_size=4, accumulation=1, steps=range(6), seed=1)
    here = list(train_loader(requests, dataset, num_workers=0, pin=False))
    there = list(train_loader(requests, dataset, num_workers=2, pin=False))
    assert len(here) == len(there) == 6
    for one, other in zip(here, there, strict=True):
        assert one.ch_names == other.ch_names
        assert torch.equal(one.x, other.x)


def test_a_dead_worker_is_told_at_the_next_batch_and_nowhere_else(stores: list[Store]) -> None:
    """Not within what happens to run when it dies, which would take the one error for another."""
    dataset = WindowDataset(stores)
    requests = StepRequests(dataset, batch_size=4, accumulation=1, steps=range(200), seed=1)
    batches = train_loader(requests, dataset, num_workers=1, pin=False)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    until = time.monotonic() + 0.5
    while worker.is_alive() or time.monotonic() < until:
        pass
    with pytest.raises(OSError, match=r"a process that reads windows ahead died \(.*\)\. .*lower num_workers"):
        list(batches)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_sees_every_window_once(dataset: WindowDataset, world: int) -> None:
    seen = [int(w) for rank in range(world) for b in eval_batches(dataset, 7, rank=rank, world=world) for w in b.window]
    assert sorted(seen) == dataset.ids().tolist()


def write_codes(files: CodeFiles, store: Store) -> None:
    """Codes that tell windows apart, of 6 channels x 4 patches."""
    for number, shard in enumerate(store.shards):
        codes = np.arange(shard.n * 2 * 6 * 4, dtype=np.uint16).reshape(shard.n, 2, 6, 4) + 1000 * number
        files.path(shard).write_bytes(files.content(shard, codes))


def test_codes_are_read_along(stores: list[Store], tmp_path: Path) -> None:
    files = CodeFiles(tmp_path, 200, (10_000, 10_000))
    write_codes(files, stores[0])
    assert [files.has(shard) for shard in stores[0].shards] == [True] * 5
    batch = WindowDataset([stores[0]]).with_codes([files])[Request(np.array([13, 0]))]
    assert batch.codes_t[0, 0, 0] == 1000 + 48
    assert batch.codes_f[1].flatten().tolist() == list(range(24, 48))
    again = pickle.loads(pickle.dumps(WindowDataset([stores[0]]).with_codes([files])))
    assert torch.equal(again[Request(np.array([13, 0]))].codes_t, batch.codes_t)


def flip(path: Path, byte: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "it does not hold what was written"),
        (lambda path: path.write_bytes(b""), "cannot mmap an empty file"),
        (lambda path: flip(path, 300), "it does not hold what was written"),
        (lambda path: flip(path, -1), "it does not hold what was written"),
        (
            lambda path: path.write_bytes((path.parent / "rec-001.npy").read_bytes()),
            "it does not hold what was written",
        ),
        (lambda path: path.unlink(), "it is missing"),
    ],
    ids=["cut short", "empty", "one bit", "its seal", "another shard's", "missing"],
)
def test_damaged_codes_are_named(stores: list[Store], tmp_path: Path, damage, said: str) -> None:
    files, shard = CodeFiles(tmp_path, 200, (10_000, 10_000)), stores[0].shards[0]
    write_codes(files, stores[0])
    assert files.fault(shard) == ""
    damage(files.path(shard))
    assert files.fault(shard) == said
    with pytest.raises(ValueError, match=rf"cached codes {files.path(shard)} cannot be used: {said}\. Launch again"):
        WindowDataset([stores[0]]).with_codes([files])[Request(np.array([3]))]


@pytest.mark.parametrize(("sizes", "kind"), [((551, 10_000), "temporal"), ((10_000, 575), "frequency")])
def test_codes_that_a_codebook_has_not_are_named(stores: list[Store], tmp_path: Path, sizes, kind: str) -> None:
    """As `cross_entropy` would say it: a target out of bounds, of no file."""
    write_codes(CodeFiles(tmp_path, 200, (10_000, 10_000)), stores[0])
    with pytest.raises(ValueError, match=rf"rec-000.npy cannot be used: it has the {kind} code 5\d+, the codebook has"):
        WindowDataset([stores[0]]).with_codes([CodeFiles(tmp_path, 200, sizes)])[Request(np.array([3]))]
