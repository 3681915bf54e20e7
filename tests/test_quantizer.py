"""The codebooks: the library's numbers, the same for any split of the batch, alive, and still in evaluation."""

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

from tests import reference_tokenizer as reference
from tokenizer import quantizer as module
from tokenizer.quantizer import Quantizer, draw_rows, kmeans, nearest

DIM, N_CODES, DECAY = 8, 32, 0.99


def make(seed: int = 0, **options: bool) -> Quantizer:
    torch.manual_seed(seed)
    return Quantizer(dim=DIM, n_codes=N_CODES, decay=DECAY, **options).train()


def library_twin(ours: Quantizer, **options: bool) -> VectorQuantize:
    theirs = VectorQuantize(
        dim=DIM,
        codebook_size=N_CODES,
        decay=DECAY,
        eps=1e-5,
        use_cosine_sim=True,
        rotation_trick=options.get("rotation_trick", False),
        sync_codebook=False,
    )
    state = {name: value for name, value in ours.state_dict().items() if not name.endswith("recent_hits")}
    theirs.load_state_dict(state)
    return theirs.train()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(n: int = 200, seed: int = 1) -> Tensor:
    return torch.randn(n, DIM, generator=generator(seed)) + 0.5


def kill_every_fourth(quantizer: Quantizer) -> None:
    """Move codes to where no vector of `batch` is, with no hits to live on."""
    away = -F.normalize(torch.ones(DIM), dim=-1)
    quantizer.book.embed[0, ::4] = away
    quantizer.book.embed_avg[0, ::4] = away * 1e-4
    quantizer.book.cluster_size[0, ::4] = 1e-4


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_equals_the_library_over_steps(rotation_trick: bool) -> None:
    ours = make(rotation_trick=rotation_trick)
    theirs = library_twin(ours, rotation_trick=rotation_trick)
    for step in range(6):
        x, y = (batch(seed=step).requires_grad_() for _ in range(2))
        quantized, codes, commitment = ours(x)
        expected, their_codes, their_commitment = theirs(y[None])
        weight = torch.randn(DIM, generator=generator(9))
        ((quantized * weight).sum() + commitment).backward()
        ((expected * weight).sum() + their_commitment.sum()).backward()
        ours.book.update(generator(), 0.0)
        assert torch.equal(codes, their_codes[0])
        torch.testing.assert_close(quantized, expected[0])
        torch.testing.assert_close(commitment, their_commitment.squeeze())
        torch.testing.assert_close(x.grad, y.grad)
        for name in ("cluster_size", "embed_avg", "embed"):
            torch.testing.assert_close(getattr(ours.book, name), getattr(theirs._codebook, name))


def test_codes_in_evaluation_are_the_librarys() -> None:
    ours = make().eval()
    theirs = library_twin(ours).eval()
    x = batch(1000)
    assert torch.equal(ours(x)[1], theirs(x[None])[1][0])


def test_a_batch_in_parts_moves_the_codebook_as_the_whole() -> None:
    whole, parts = make(), make()
    for each in (whole, parts):
        kill_every_fourth(each)
    x = batch(300) + 1
    whole(x)
    for part in x.split([10, 150, 140]):
        parts(part)
    assert whole.book.update(generator(), 0.5) == parts.book.update(generator(), 0.5) > 0
    for name, buffer in whole.book.named_buffers():
        torch.testing.assert_close(buffer, parts.book.get_buffer(name))


def test_evaluation_changes_nothing() -> None:
    quantizer = make().eval()
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(batch())
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())
    with pytest.raises(RuntimeError, match="needs a training forward"):
        quantizer.book.update(generator(), 0.1)


def test_chunks_do_not_change_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codes = F.normalize(batch(101), dim=-1), F.normalize(batch(N_CODES, seed=5), dim=-1)
    whole = (vectors @ codes.T).argmax(-1)
    monkeypatch.setattr(module, "CHUNK", 7)
    assert torch.equal(nearest(vectors, codes), whole)


def test_dead_codes_are_put_on_vectors_of_the_batch() -> None:
    quantizer, twin = make(), make()
    x = batch(64) + 1
    for each in (quantizer, twin):
        kill_every_fourth(each)
        each(x)
    before = quantizer.book.embed.clone()
    assert quantizer.book.update(generator(3), 0.1) == twin.book.update(generator(3), 0.1) == N_CODES // 4
    assert torch.equal(quantizer.book.embed, twin.book.embed)
    revived = quantizer.book.embed[0, ::4]
    similarity = revived @ F.normalize(x, dim=-1).T
    torch.testing.assert_close(similarity.max(-1).values, torch.ones(N_CODES // 4))
    assert len(set(similarity.argmax(-1).tolist())) == N_CODES // 4, "two codes on one vector"
    kept = [k for k in range(N_CODES) if k % 4]
    assert (quantizer.book.embed[0, kept] * before[0, kept]).sum(-1).min() > 0.9
    # A revived code has a while to find its vectors before it is dead again.
    quantizer(x)
    assert quantizer.book.update(generator(4), 0.1) == 0


def test_more_dead_codes_than_vectors() -> None:
    quantizer = make()
    quantizer.book.cluster_size.zero_()
    quantizer.book.cluster_size[0, 0] = 1000.0
    quantizer(batch(5))
    quantizer.book.update(generator(), 0.5)
    assert torch.isfinite(quantizer.book.embed).all()


def test_recent_hits_count_since_they_were_taken() -> None:
    quantizer = make()
    for _ in range(2):
        quantizer(batch(100))
        quantizer.book.update(generator(), 0.0)
    assert quantizer.book.take_recent_hits().sum() == 200
    assert quantizer.book.take_recent_hits().sum() == 0


def test_float32_under_autocast() -> None:
    quantizer = make().eval()
    x = batch(500)
    plain = quantizer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = quantizer(x)
    assert cast[0].dtype == torch.float32
    assert torch.equal(plain[1], cast[1])


def test_forgotten_updates_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 250)
    quantizer = make()
    quantizer(batch(200))
    with pytest.raises(RuntimeError, match="update_codebooks"):
        quantizer(batch(200))


def test_waits_for_its_start() -> None:
    quantizer = make(kmeans_init=True)
    x = batch(300)
    passed, codes, commitment = quantizer(x)
    assert codes is None
    assert commitment == 0
    torch.testing.assert_close(passed, F.normalize(x, dim=-1))
    quantizer.book.initialise(F.normalize(x, dim=-1), generator(), n_iters=5, vectors_per_step=100.0)
    assert quantizer.started
    quantized, codes, _ = quantizer(x)
    assert len(codes.unique()) == N_CODES
    assert quantizer.book.cluster_size.sum().item() == pytest.approx(100.0)
    torch.testing.assert_close(quantized.norm(dim=-1), torch.ones(300))


def test_noise_before_the_start_leaves_the_bits_of_a_code() -> None:
    quantizer = make(kmeans_init=True)
    bits = DIM / 2 * math.log2(1 + 1 / (DIM * quantizer.capacity_noise**2))
    assert bits == pytest.approx(math.log2(N_CODES))
    x = batch(50)
    still, _, _ = quantizer(x, torch.zeros_like(x))
    torch.testing.assert_close(still, quantizer(x)[0])
    noisy, codes, _ = quantizer(x, torch.randn_like(x))
    assert codes is None
    torch.testing.assert_close(noisy.norm(dim=-1), torch.ones(50))
    assert (noisy * still).sum(-1).mean() < 0.95
    quantizer.book.initialise(F.normalize(batch(300), dim=-1), generator(), n_iters=2, vectors_per_step=50.0)
    assert torch.equal(quantizer(x, torch.randn_like(x))[0], quantizer(x)[0]), "codes take no noise"


def test_kmeans_equals_lloyd() -> None:
    vectors = F.normalize(batch(400), dim=-1).double()
    start = draw_rows([vectors], N_CODES, generator(2))
    codes, hits = kmeans(vectors, N_CODES, 4, generator(2))
    torch.testing.assert_close(codes, reference.lloyd(vectors, start, 4))
    assert hits.sum() == 400


def test_kmeans_wants_a_patch_per_code() -> None:
    with pytest.raises(ValueError, match="20 patches for 32 codes"):
        kmeans(F.normalize(batch(20), dim=-1), N_CODES, 2, generator())


def test_identical_vectors_give_no_nan() -> None:
    quantizer = make(kmeans_init=True)
    x = torch.ones(100, DIM)
    quantizer.book.initialise(F.normalize(x, dim=-1), generator(), n_iters=3, vectors_per_step=100.0)
    for _ in range(3):
        quantizer(x)
        quantizer.book.update(generator(), 0.15)
    assert torch.isfinite(quantizer.book.embed).all()
