"""Stage 2: the loss of masked code prediction and the cache of codes."""

import dataclasses
import hashlib
import json
import resource
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from codebrain.backbone import BackboneConfig
from codebrain.data.format import Store, publish
from codebrain.data.windows import Batch, Request, WindowDataset
from codebrain.model import CodeBrain, MaskedTokenModel
from codebrain.patches import to_model_units
from codebrain.training import launch
from codebrain.training.launch import LoopConfig, Run
from codebrain.training.logging import read_metrics
from pretrain.stage2 import MaskConfig, Stage2, Stage2Config
from tests.conftest import write_toy_store
from tests.processes import ROOT, environment, launch_line
from tests.processes import run as processes_run
from tokenizer import DualTokenizer, TokenizerConfig, cache
from tokenizer.cache import code_files, ensure_codes, fingerprint, require_writable

CHANGED = ("res_channels", "skip_channels", "out_channels", "num_res_layers", "drop_prob", "spectral_dropout")
SIZES = BackboneConfig(
    res_channels=16, skip_channels=16, out_channels=16, num_res_layers=1, drop_prob=0.0, spectral_dropout=0.0
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_toy_store(tmp_path_factory.mktemp("stage2") / "store", n_subjects=3)


@pytest.fixture(scope="module")
def tokenizer(store: Store) -> DualTokenizer:
    torch.manual_seed(0)
    sizes = TokenizerConfig(width=32, n_layers=1, n_heads=4, decoder_layers=1, n_codes_t=32, n_codes_f=24)
    model = DualTokenizer(sizes)
    batch = WindowDataset([store])[Request(np.arange(30))]
    model.init_codebooks([(batch.x, batch.ch_names)], torch.Generator().manual_seed(0), vectors_per_step=100)
    return model.requires_grad_(False).eval()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return launch.start(tmp_path / "run", LoopConfig(total_steps=1, trackers=[]), LoopConfig(total_steps=1))


def make_task(run: Run, tokenizer: DualTokenizer, store: Store, mask: MaskConfig) -> Stage2:
    loop = LoopConfig(total_steps=1, batch_size=5)
    config = Stage2Config(data=[], tokenizer="", run_dir="", mask=mask, model=SIZES, loop=loop)
    return Stage2(config, run, tokenizer, WindowDataset([store]))


def make_model(tokenizer: DualTokenizer) -> MaskedTokenModel:
    torch.manual_seed(1)
    return MaskedTokenModel(tokenizer.config.n_codes_t, tokenizer.config.n_codes_f, **dataclasses.asdict(SIZES))


def part_of(dataset: WindowDataset, windows: np.ndarray, offset: int, size: int) -> Batch:
    return dataset[Request(windows[offset : offset + size], offset, len(windows))]


@pytest.mark.parametrize(
    "mask",
    [
        MaskConfig(),
        MaskConfig(kind="exact", ratio=0.3),
        MaskConfig(kind="blocks", block=(3, 2)),
        MaskConfig(symmetric=True),
        MaskConfig(visible_weight=0.5),
        MaskConfig(symmetric=True, visible_weight=2.0),
    ],
    ids=lambda mask: f"{mask.kind}{'-symmetric' * mask.symmetric}{'-visible' * (mask.visible_weight > 0)}",
)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    run: Run, tokenizer: DualTokenizer, store: Store, mask: MaskConfig
) -> None:
    task, dataset, windows = make_task(run, tokenizer, store, mask), WindowDataset([store]), np.arange(3, 11)
    gradients = []
    for size in (8, 4, 2):
        model = make_model(tokenizer)
        for offset in range(0, 8, size):
            generator = torch.Generator().manual_seed(7)
            loss, _ = task.loss(model, part_of(dataset, windows, offset, size), generator)
            (loss * size / 8).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for part in gradients[1:]:
        for one, other in zip(gradients[0], part, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_loss_counts_hidden_patches_only(run: Run, tokenizer: DualTokenizer, store: Store) -> None:
    task, dataset = make_task(run, tokenizer, store, MaskConfig()), WindowDataset([store])
    batch, model = dataset[Request(np.arange(4))], make_model(tokenizer)
    loss, scalars = task.loss(model, batch, torch.Generator().manual_seed(3))
    mask = task._mask((4, 6, 4), torch.Generator().manual_seed(3))
    codes = tokenizer.encode(batch.x, batch.ch_names)
    expected = torch.zeros(2)
    for which, (logits, target) in enumerate(
        zip(model(to_model_units(batch.x), mask), (codes.t, codes.f), strict=True)
    ):
        for row, (b, c, p) in enumerate(mask.nonzero().tolist()):
            expected[which] -= logits[row].log_softmax(-1)[target[b, c, p]] / int(mask.sum())
    torch.testing.assert_close(loss, expected.sum())
    torch.testing.assert_close(torch.stack([scalars["loss_t"], scalars["loss_f"]]), expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_visible_patches_count_by_their_weight(
    run: Run, tokenizer: DualTokenizer, store: Store, symmetric: bool
) -> None:
    """Beside the plain loss: the mean over visible patches of both cross-entropies, in one pass through the model."""
    dataset, model = WindowDataset([store]), make_model(tokenizer)
    batch = dataset[Request(np.arange(4))]

    def loss_of(weight: float) -> tuple[torch.Tensor, dict]:
        task = make_task(run, tokenizer, store, MaskConfig(symmetric=symmetric, visible_weight=weight))
        return task.loss(model, batch, torch.Generator().manual_seed(3))

    plain, terms = loss_of(0.0)
    mask = make_task(run, tokenizer, store, MaskConfig())._mask((4, 6, 4), torch.Generator().manual_seed(3))
    codes = tokenizer.encode(batch.x, batch.ch_names)
    expected, n = torch.zeros(()), 0
    for hidden in (mask, ~mask) if symmetric else (mask,):
        both = model(to_model_units(batch.x), hidden, everywhere=True)
        for b, c, p in (~hidden).nonzero().tolist():
            n += 1
            for logits, target in zip(both, (codes.t, codes.f), strict=True):
                expected = expected - logits[b, c, p].log_softmax(-1)[target[b, c, p]]
    weighted, all_terms = loss_of(0.7)
    torch.testing.assert_close(all_terms["loss_visible"], expected / n)
    torch.testing.assert_close(weighted, plain + 0.7 * expected / n)
    torch.testing.assert_close(all_terms["loss_t"], terms["loss_t"])


@pytest.mark.parametrize("batch_size", [3, 5])
def test_validation_masks_belong_to_the_windows(
    run: Run, tokenizer: DualTokenizer, store: Store, batch_size: int
) -> None:
    task, model = make_task(run, tokenizer, store, MaskConfig()), make_model(tokenizer).eval()
    with torch.no_grad():
        first, again = task.evaluate(model), task.evaluate(model)
    assert first == again
    assert {"valid/top1_t_alpha", "valid/top1_f_alpha"} <= first.keys()
    tally = task.tally(model)
    n_hidden = float(tally.t.sums[3:].sum())
    assert float(tally.electrodes.sums[0].sum()) == float(tally.bands.sums[0].sum()) == n_hidden
    # Every way of counting finds the same right guesses.
    assert tally.electrodes.sums[1:].sum(1).tolist() == tally.bands.sums[1:].sum(1).tolist()
    assert tally.electrodes.sums[1].sum() == pytest.approx(first["valid/top1_t"] * n_hidden)
    assert first["valid/loss"] == pytest.approx(np.log(2) * (first["valid/bits_t"] + first["valid/bits_f"]))


def test_an_electrode_counts_once_whatever_it_is_called(run: Run, tokenizer: DualTokenizer, tmp_path: Path) -> None:
    old, new = (
        write_toy_store(tmp_path / name, n_subjects=1, ch_names=(name, "Cz", "Fp1-F7")) for name in ("T3", "T7")
    )
    task, model = make_task(run, tokenizer, old, MaskConfig()), make_model(tokenizer)
    task.valid = WindowDataset([old, new])
    found = task.tally(model).electrodes
    assert found.names == ("T7", "Cz", "Fp1-F7")
    assert found.sums[0].sum() == pytest.approx(2 * 12 * 3 * 4 / 2, rel=0.2)


def test_cached_codes_are_the_tokenizers(tokenizer: DualTokenizer, store: Store) -> None:
    files = ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    dataset = WindowDataset([store])
    for request in (Request(np.arange(12)), Request(np.array([35, 2, 20]))):
        batch = dataset.with_codes(files)[request]
        codes = tokenizer.encode(batch.x, batch.ch_names)
        assert torch.equal(batch.codes_t, codes.t)
        assert torch.equal(batch.codes_f, codes.f)
    size = files[0].path(store.shards[0]).stat().st_size
    assert size == pytest.approx(12 * 2 * 6 * 4 * 2, abs=256)


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_codes_that_cannot_be_kept_are_refused_before_there_is_a_run(
    tokenizer: DualTokenizer, tmp_path: Path, taken: str
) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=3)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    if taken == "file":
        (store.path / "codes").touch()
    else:  # not even root may write there
        (store.path / "codes").symlink_to("/proc")
    with pytest.raises(ValueError, match=r"cannot be kept in .*store/codes \(.*--token_cache off"):
        require_writable([store], tokenizer)
    if taken == "file":
        given = ("--data", str(store.path), "--tokenizer", str(tmp_path / "tokenizer"))
        result = processes_run(
            ROOT / "pretrain/stage2.py", *given, "--run_dir", str(tmp_path / "run"), "--loop.total_steps=1"
        )
        assert result.returncode == 2, result.stderr
        assert "--token_cache off" in result.stderr
        assert not (tmp_path / "run").exists()


def test_sigterm_in_the_token_cache_ends_at_once(tokenizer: DualTokenizer, tmp_path: Path) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=60)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    given = ("--data", str(store.path), "--tokenizer", str(tmp_path / "tokenizer"), "--run_dir", str(tmp_path / "run"))
    command = launch_line(ROOT / "pretrain/stage2.py", *given, "--loop.total_steps=1", "--loop.eval_batch_size=1")
    child = subprocess.Popen(command, env=environment(), cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while not list(store.path.glob("codes/*/*.npy")):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.01)
    child.terminate()
    _, said = child.communicate(timeout=30)
    assert child.returncode == 75, said
    assert said.count(b"stopped by SIGTERM; nothing is lost: launch again to go on.") == 1
    (files,) = ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    shapes = {np.load(files.path(shard)).shape for shard in store.shards}
    assert len(shapes) == 1


def test_codes_that_are_there_need_no_writing(tokenizer: DualTokenizer, tmp_path: Path) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=3)
    (files,) = ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    files.folder.parent.rename(tmp_path / "elsewhere")
    (store.path / "codes").symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").stat().st_mtime_ns, sorted(files.folder.iterdir())
    require_writable([store], tokenizer)
    assert before == ((tmp_path / "elsewhere").stat().st_mtime_ns, sorted(files.folder.iterdir()))


def test_an_interrupted_cache_computes_only_what_is_missing(tokenizer: DualTokenizer, store: Store) -> None:
    accelerator = Accelerator(cpu=True)
    (files,) = ensure_codes([store], tokenizer, accelerator, batch_size=5, name="R1")
    kept, lost = (files.path(shard) for shard in store.shards[:2])
    lost.unlink()
    before = kept.stat().st_mtime_ns
    ensure_codes([store], tokenizer, accelerator, batch_size=5, name="R1")
    assert lost.exists()
    assert kept.stat().st_mtime_ns == before


def test_cut_off_codes_are_computed_again_and_leftovers_go(tokenizer: DualTokenizer, tmp_path: Path) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=3)
    files = code_files(store, tokenizer)
    files.folder.mkdir(parents=True)
    leftover = files.folder / "rec-000.npy.0a1b2c3d.partial"
    leftover.touch()
    ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="runs/R1")
    assert sorted(path.name for path in files.folder.iterdir()) == ["about.json", *(f"rec-00{n}.npy" for n in range(3))]
    about = json.loads((files.folder / "about.json").read_text())
    assert (about["tokenizer"], about["store"]) == ("runs/R1", str(store.path))

    kept, cut = (files.path(shard) for shard in store.shards[:2])
    whole, before = cut.read_bytes(), kept.stat().st_mtime_ns
    cut.write_bytes(whole[:-1])
    assert [files.has(shard) for shard in store.shards] == [True, False, True]
    ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    assert cut.read_bytes() == whole
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["one bit", "another shard's", "zeros"])
def test_damaged_codes_are_reported_and_computed_again(
    tokenizer: DualTokenizer, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=3)
    (files,) = ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    kept, damaged = (files.path(shard) for shard in store.shards[:2])
    whole, before = damaged.read_bytes(), kept.stat().st_mtime_ns
    changed = {
        "one bit": bytes([*whole[:-40], whole[-40] ^ 0x80, *whole[-39:]]),  # a code beyond the codebook
        "another shard's": kept.read_bytes(),
        "zeros": bytes(len(whole)),
    }
    damaged.write_bytes(changed[damage])
    assert files.has(store.shards[1])
    with pytest.raises(ValueError, match=r"rec-001\.npy cannot be used: .* Launch again"):
        WindowDataset([store]).with_codes([files])[Request(np.array([13]))]
    capsys.readouterr()
    ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    said = f"{damaged} cannot be used, it does not hold what was written: its codes are computed again"
    assert said in capsys.readouterr().err
    assert damaged.read_bytes() == whole
    assert kept.stat().st_mtime_ns == before


def test_codes_of_the_version_without_seals_are_computed_again(tokenizer: DualTokenizer, tmp_path: Path) -> None:
    """They lay under another name, which a program of that version alone knows: neither reads the other's."""
    store = write_toy_store(tmp_path / "store", n_subjects=1)
    key = hashlib.sha256(f"{fingerprint(tokenizer)}:{store.fingerprint()}".encode()).hexdigest()
    old = store.path / "codes" / key[:16] / "rec-000.npy"
    old.parent.mkdir(parents=True)
    np.save(old, np.zeros((12, 2, 6, 4), np.uint16))
    before = old.read_bytes()
    (files,) = ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    assert files.folder != old.parent
    assert files.fault(store.shards[0]) == ""
    assert old.read_bytes() == before


def test_codes_that_another_run_had_first_are_no_fault(
    tokenizer: DualTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finishes, and sweeps this run's unfinished file away."""
    store = write_toy_store(tmp_path / "store", n_subjects=1)
    files = code_files(store, tokenizer)
    (shard,) = store.shards

    def swept(partial: Path, final: Path) -> None:
        if final.suffix == ".npy":
            partial.rename(final)
        publish(partial, final)

    monkeypatch.setattr(cache, "publish", swept)
    ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    assert files.has(shard)


def test_a_full_disk_is_named_while_codes_are_written(tokenizer: DualTokenizer, tmp_path: Path) -> None:
    store = write_toy_store(tmp_path / "store", n_subjects=1)
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"codes could not be written to .*codes.*Make room and launch again"):
            ensure_codes([store], tokenizer, Accelerator(cpu=True), batch_size=5, name="R1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in code_files(store, tokenizer).folder.iterdir()] == ["about.json"]


def test_a_changed_tokenizer_or_store_has_other_codes(tokenizer: DualTokenizer, store: Store, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = DualTokenizer(tokenizer.config)
    changed = write_toy_store(tmp_path / "store", n_subjects=3, seed=1)
    assert fingerprint(other) != fingerprint(tokenizer)
    folders = {
        code_files(store, tokenizer).folder,
        code_files(store, other).folder,
        code_files(changed, tokenizer).folder,
    }
    assert len({folder.name for folder in folders}) == 3


def test_a_run_keeps_to_what_it_was_started_with(run: Run) -> None:
    run.keep_to({"data": {"A": "1", "B": "2"}, "tokenizer": {"R1": "3"}})
    run.keep_to({"data": {"A": "1", "B": "2"}, "tokenizer": {"R1": "4"}})
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    moved = {"data": {"elsewhere/A": "1", "B": "2"}, "tokenizer": {"../R1": "4"}}
    run.keep_to(moved)
    swapped = r"--data B \(then elsewhere/A, now B\), --data elsewhere/A \(then B, now elsewhere/A\)"
    for changed, named in [
        ({"tokenizer": {"R1": "5"}}, r"contents of --tokenizer R1 \(then ../R1, now R1\)\. Give"),
        ({"data": {"elsewhere/A": "1", "B": "6"}}, r"contents of --data B\. Give"),
        ({"data": {"B": "2", "elsewhere/A": "1"}}, swapped),
        ({"data": {"elsewhere/A": "1"}}, r"--data B \(then B, now not there\)"),
        ({"data": {**moved["data"], "C": "7"}}, r"--data C \(then not there, now C\)"),
    ]:
        with pytest.raises(ValueError, match=named):
            run.keep_to({**moved, **changed})
    run.keep_to(moved)


def test_stores_and_tokenizer_may_move_but_not_change(tokenizer: DualTokenizer, tmp_path: Path) -> None:
    """The real script, stopped before its end, taken up after everything was renamed."""

    def launched(*given: str) -> subprocess.CompletedProcess[str]:
        sizes = [f"--model.{name}={value}" for name, value in dataclasses.asdict(SIZES).items() if name in CHANGED]
        loop = ["--loop.total_steps=3", "--loop.batch_size=4", "--loop.save_every=1", "--loop.trackers=[]"]
        return processes_run(ROOT / "pretrain/stage2.py", *given, "--run_dir", str(tmp_path / "run"), *sizes, *loop)

    store = write_toy_store(tmp_path / "store", n_subjects=3)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    first = launched("--data", str(store.path), "--tokenizer", str(tmp_path / "tokenizer"))
    assert first.returncode == 0, first.stderr
    told = CodeBrain.from_pretrained(tmp_path / "run").record
    assert {name: told[name] for name in ("steps", "windows", "subjects", "held_out_subjects")} == {
        **{"steps": 3, "windows": 24, "subjects": 2, "held_out_subjects": 1}
    }
    assert told["stores"] == [{"windows": 36, "window_seconds": 4.0, "preparation": store.info.preparation}]
    assert "Trained for 3 steps on 24 windows of 2 subjects" in (tmp_path / "run/export/README.md").read_text()
    weights = load_file(tmp_path / "run/export/model.safetensors")
    for gone in ("summary.json", "export", "checkpoints/step-00000003"):
        path = tmp_path / "run" / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    (tmp_path / "disk").mkdir()
    for name in ("store", "tokenizer"):
        (tmp_path / name).rename(tmp_path / "disk" / name)
    other = write_toy_store(tmp_path / "store", n_subjects=3, seed=1)
    moved = "--tokenizer", str(tmp_path / "disk/tokenizer")
    refused = launched("--data", str(other.path), *moved)
    assert refused.returncode == 2
    assert f"was trained with other contents of --data {other.path}." in refused.stderr
    again = launched("--data", str(tmp_path / "disk/store"), *moved)
    assert again.returncode == 0, again.stderr
    assert "at step 2 of 3" in again.stdout
    assert all(
        torch.equal(value, weights[name])
        for name, value in load_file(tmp_path / "run/export/model.safetensors").items()
    )


@pytest.mark.parametrize("content", ["", "[]", '{"store": "a'])
def test_damaged_notes_of_a_run_are_named(run: Run, content: str) -> None:
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    for name in ("inputs.json", "summary.json"):
        (run.path / name).write_text(content)
    with pytest.raises(ValueError, match=r"run/inputs.json is damaged \(.*\). Delete that file and launch again"):
        run.keep_to({"data": {"A": "1"}})
    with pytest.raises(ValueError, match=r"run/summary.json is damaged \(.*\). Delete that file and launch again"):
        _ = run.summary
    for name in ("inputs.json", "summary.json"):
        (run.path / name).unlink()
    run.keep_to({"data": {"A": "1"}})
    assert run.summary is None


def test_the_published_tokenizer_has_a_fingerprint() -> None:
    """BatchNorm counts its batches in a tensor without dimensions."""
    small = {"width": 16, "n_layers": 1, "n_heads": 2, "decoder_layers": 1, "n_codes_t": 8, "n_codes_f": 8}
    sizes = TokenizerConfig(**small, conv_norm="batch")
    assert len(fingerprint(DualTokenizer(sizes))) == 64


def test_codebooks_that_uint16_cannot_name(store: Store) -> None:
    sizes = TokenizerConfig(width=16, n_layers=1, n_heads=2, decoder_layers=1, n_codes_t=70_000, n_codes_f=8)
    with pytest.raises(ValueError, match="--token_cache off"):
        ensure_codes([store], DualTokenizer(sizes), Accelerator(cpu=True), batch_size=5, name="R1")


@pytest.mark.parametrize(
    ("processes", "accumulation"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)], ids=["processes", "parts"]
)
def test_one_batch_in_parts_is_the_same_run(
    tokenizer: DualTokenizer, tmp_path: Path, processes: int, accumulation: int
) -> None:
    """The real script, its cache of codes included: weights after four updates, figures and codes."""
    store = write_toy_store(tmp_path / "store", n_subjects=4)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    sizes = [f"--model.{name}={value}" for name, value in dataclasses.asdict(SIZES).items() if name in CHANGED]
    ends, codes = [], []
    for name, world, parts in (("whole", 1, 1), ("parts", processes, accumulation)):
        shutil.rmtree(store.path / "codes", ignore_errors=True)
        loop = {"total_steps": 4, "batch_size": 4 // (world * parts), "accumulation": parts, "eval_every": 2}
        result = processes_run(
            ROOT / "pretrain/stage2.py",
            *("--data", str(store.path), "--tokenizer", str(tmp_path / "tokenizer"), "--run_dir", str(tmp_path / name)),
            *sizes,
            *(f"--loop.{key}={value}" for key, value in loop.items()),
            *("--loop.eval_batch_size=7", "--loop.trackers=[]"),
            processes=world,
        )
        assert result.returncode == 0, result.stderr
        ends.append(load_file(tmp_path / name / "export/model.safetensors"))
        codes.append([np.load(path) for path in sorted(store.path.glob("codes/*/*.npy"))])
    assert all(np.array_equal(one, other) for one, other in zip(*codes, strict=True))
    for name, one in ends[0].items():
        torch.testing.assert_close(ends[1][name], one, rtol=1e-3, atol=1e-5, msg=name)
    figures = [[line for line in read_metrics(tmp_path / name) if "valid/loss" in line] for name in ("whole", "parts")]
    for one, other in zip(*figures, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
