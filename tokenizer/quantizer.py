"""Codebooks: vector-quantize-pytorch's cosine EMA quantiser with a lean, explicit update.

The library assigns, averages and re-seeds inside `forward`, through a one-hot matrix of tokens x codes. Here `forward`
only assigns, and remembers the vectors of the optimizer step; `update` then moves the codebook once for the whole
global batch, whatever its split over micro-batches and processes. The numbers are the library's
(tests/test_quantizer.py).

A codebook that is to start by k-means passes vectors on unquantised until then: an encoder that trains against codes
from its first step may fold all patches onto a few of them. Noise can stand in for the codes meanwhile, so that the
vectors carry no more than the codes will (docs/experiments.md has what each is worth).

Shapes: n vectors, K codes, D their dimension.
"""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize
from vector_quantize_pytorch.vector_quantize_pytorch import Codebook

CHUNK = 1024  # vectors whose similarities to all codes exist at a time
MAX_PENDING = 2**21  # vectors remembered between two updates before something must be wrong


class LeanCodebook(Codebook):
    """The library's codebook, assigning by chunks and updated by an explicit `update`.

    Buffers `embed` (1, K, D), `embed_avg` (1, K, D), `cluster_size` (1, K) and `initted` are the library's and mean
    what they mean there. `recent_hits` (K,) counts assignments since `take_recent_hits` last took them.
    """

    recent_hits: Tensor

    def __init__(self, *, dim: int, codebook_size: int, decay: float, eps: float, kmeans_init: bool) -> None:
        super().__init__(
            dim=dim,
            codebook_size=codebook_size,
            decay=decay,
            eps=eps,
            kmeans_init=kmeans_init,
            threshold_ema_dead_code=0,
            use_cosine_sim=True,
        )
        self.register_buffer("recent_hits", torch.zeros(codebook_size, dtype=torch.int64))
        self._pending: list[tuple[Tensor, Tensor]] = []  # (vectors, codes) of each micro-batch since the last update

    @torch.compiler.disable
    def forward(self, x: Tensor, **_: Any) -> tuple[Tensor, Tensor, None]:
        """Assign unit vectors (..., D) to their nearest codes; in training, remember them for `update`.

        Returns
        -------
        quantized : Tensor, (..., D)
        codes : Tensor, (...), int64
        distances : None
            The library's third value, n x K, which nothing here needs.
        """
        vectors = x.detach().flatten(0, -2)
        codes = nearest(vectors, self.embed[0])
        if self.training:
            self._remember(vectors, codes)
        return self.embed[0][codes].view_as(x), codes.view(x.shape[:-1]), None

    def _remember(self, vectors: Tensor, codes: Tensor) -> None:
        self._pending.append((vectors, codes))
        if sum(len(codes) for _, codes in self._pending) > MAX_PENDING:
            raise RuntimeError(
                f"the quantiser holds more than {MAX_PENDING} vectors since its last update: "
                "call update_codebooks() after every optimizer step, or eval() for inference"
            )

    @torch.no_grad()
    def update(self, generator: torch.Generator, revive_below: float) -> int:
        """Move the codes towards the vectors of this step, and re-seed dead ones. Collective.

        Parameters
        ----------
        generator : torch.Generator
            On the CPU and in the same state on every process; picks the vectors that replace dead codes.
        revive_below : float
            A code is dead when its moving average of hits is below this fraction of the codes' mean; 0 revives none.

        Returns
        -------
        int
            Codes re-seeded in this step.
        """
        hits, sums = self._take_step()
        self.recent_hits += hits.long()
        self.cluster_size.lerp_(hits[None], 1 - self.decay)
        self.embed_avg.lerp_(sums[None], 1 - self.decay)
        self.update_ema()
        revived = self._revive(generator, revive_below)
        self._pending.clear()
        return revived

    def take_recent_hits(self) -> Tensor:
        """Assignments (K,) in training, over all processes, since this was last called."""
        hits = self.recent_hits.clone()
        self.recent_hits.zero_()
        return hits

    @torch.no_grad()
    def initialise(self, vectors: Tensor, generator: torch.Generator, *, n_iters: int, vectors_per_step: float) -> None:
        """Place the codes by spherical k-means over vectors of all processes. Collective.

        Parameters
        ----------
        vectors : Tensor, (n, D)
            This process's unit vectors.
        generator : torch.Generator
            On the CPU and in the same state on every process.
        n_iters : int
            Lloyd iterations.
        vectors_per_step : float
            Vectors of one optimizer step, over all processes: the weight that the start has in the moving averages.
        """
        codes, hits = kmeans(vectors, self.codebook_size, n_iters, generator)
        hits = hits.clamp(min=1.0)  # a code without vectors keeps its place instead of averaging to zero
        hits *= vectors_per_step / hits.sum()
        self.cluster_size.copy_(hits[None])
        self.embed_avg.copy_((codes * hits[:, None])[None])
        self.update_ema()
        self.initted.fill_(True)

    def _take_step(self) -> tuple[Tensor, Tensor]:
        """Hits (K,) and vector sums (K, D) of the step, over its micro-batches and all processes."""
        if not self._pending:
            raise RuntimeError("update_codebooks() needs a training forward since the last update; there was none")
        totals = torch.zeros_like(self.cluster_size[0]), torch.zeros_like(self.embed_avg[0])
        for vectors, codes in self._pending:
            add_by_code(totals, vectors, codes)
        all_reduce(*totals)
        return totals

    def _revive(self, generator: torch.Generator, revive_below: float) -> int:
        """Put each dead code on a vector of the current global batch, with the mean weight."""
        mean = self.cluster_size.mean()
        dead = (self.cluster_size[0] < revive_below * mean).nonzero().flatten()
        if not len(dead):
            return 0
        vectors = draw_rows([vectors for vectors, _ in self._pending], len(dead), generator)
        dead = dead[: len(vectors)]
        self.embed[0, dead] = vectors
        self.embed_avg[0, dead] = vectors * mean
        self.cluster_size[0, dead] = mean
        return len(dead)


class Quantizer(VectorQuantize):
    """A codebook with the straight-through gradient of the paper, in float32 under any autocast.

    Parameters
    ----------
    dim : int
        D, dimension of the codes.
    n_codes : int
        K, size of the codebook.
    decay : float
        Of the moving averages, per optimizer step.
    kmeans_init : bool
        Pass vectors on unquantised until `book.initialise` has placed the codes; otherwise codes start at random.
    rotation_trick : bool
        Pass the gradient by rotation (arXiv 2410.06424) instead of straight through.
    """

    _codebook: LeanCodebook

    def __init__(
        self, *, dim: int, n_codes: int, decay: float, kmeans_init: bool = False, rotation_trick: bool = False
    ) -> None:
        fixed: dict[str, Any] = dict(dim=dim, codebook_size=n_codes, decay=decay, eps=1e-5, kmeans_init=kmeans_init)
        super().__init__(
            **fixed,
            use_cosine_sim=True,
            rotation_trick=rotation_trick,
            threshold_ema_dead_code=0,
            sync_codebook=False,  # `update` reduces over the processes itself
        )
        self._codebook = LeanCodebook(**fixed)

    @property
    def book(self) -> LeanCodebook:
        """The codebook and its moving averages."""
        return self._codebook

    @property
    def capacity_noise(self) -> float:
        """Noise per dimension under which a unit vector carries log2 K bits, as a code does.

        Shannon's D/2 log2(1 + 1 / (D sigma^2)) = log2 K, solved for sigma.
        """
        dim, n_codes = self.book.embed.shape[-1], self.book.codebook_size
        return (dim * (n_codes ** (2 / dim) - 1)) ** -0.5

    @property
    def started(self) -> bool:
        """Whether the codes are in place."""
        return bool(self.book.initted)

    @torch.compiler.disable
    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Replace vectors by their nearest codes on the sphere.

        Parameters
        ----------
        x : Tensor, (..., D)
        noise : Tensor, (..., D), optional
            Standard normal, times `capacity_noise` added to the unit vectors before the codebook has started.

        Returns
        -------
        quantized : Tensor, (..., D), float32
            Unit vectors, with the gradient of `x`; before the codebook has started `x` itself, normalised.
        codes : Tensor, (...), int64, or None before the codebook has started
        commitment : Tensor, ()
            Mean squared distance of the normalised `x` to its code.
        """
        with torch.autocast(device_type=x.device.type, enabled=False):
            flat = F.normalize(x.float().flatten(0, -2), dim=-1)[None]
            if not self.started:
                if noise is not None:
                    flat = F.normalize(flat + self.capacity_noise * noise.reshape(flat.shape), dim=-1)
                return flat.view(x.shape), None, flat.new_zeros(())
            quantized, codes, _ = super().forward(flat)
            commitment = F.mse_loss(flat, self.lookup(codes))
        return quantized.view(x.shape), codes.view(x.shape[:-1]), commitment

    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors (..., D) of codes (...)."""
        return self.book.embed[0][codes]


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index of the most similar code (K, D) for each of n unit vectors (n, D), never holding n x K."""
    transposed = codes.T
    return torch.cat([(chunk @ transposed).argmax(-1) for chunk in vectors.split(CHUNK)])


def add_by_code(totals: tuple[Tensor, Tensor], vectors: Tensor, codes: Tensor) -> None:
    """Add n vectors (n, D) with codes (n,) to hits (K,) and sums (K, D), in place."""
    hits, sums = totals
    hits += torch.bincount(codes, minlength=len(hits))
    sums.index_add_(0, codes, vectors)


def kmeans(vectors: Tensor, n_codes: int, n_iters: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spherical k-means over the vectors of all processes. Collective.

    Returns
    -------
    codes : Tensor, (K, D)
        Unit vectors.
    hits : Tensor, (K,), float
        Vectors nearest to each before the last iteration moved it.
    """
    codes = draw_rows([vectors], n_codes, generator)
    if len(codes) < n_codes:
        raise ValueError(
            f"k-means needs at least as many patches as codes: {len(codes)} patches for {n_codes} codes; "
            "give more data or a smaller codebook"
        )
    hits = codes.new_zeros(n_codes)
    for _ in range(n_iters):
        hits, sums = codes.new_zeros(n_codes), torch.zeros_like(codes)
        add_by_code((hits, sums), vectors, nearest(vectors, codes))
        all_reduce(hits, sums)
        codes = torch.where(hits[:, None] > 0, F.normalize(sums, dim=-1), codes)
    return codes, hits


def draw_rows(batches: list[Tensor], n: int, generator: torch.Generator) -> Tensor:
    """`n` different rows of the global batch, the same on every process (fewer if there are fewer). Collective.

    Rows are numbered micro-batch by micro-batch and, within one, process by process: the order of the windows in the
    global batch, so the draw does not depend on how the batch was split.
    """
    sizes = _gather_sizes([len(batch) for batch in batches])
    ends = sizes.flatten().cumsum(0)
    picks = torch.randperm(int(ends[-1]), generator=generator)[:n]
    rows = batches[0].new_zeros(len(picks), batches[0].shape[-1])
    rank, n_ranks = (dist.get_rank(), dist.get_world_size()) if _distributed() else (0, 1)
    for i, batch in enumerate(batches):
        local = picks - (ends[i * n_ranks + rank] - len(batch))
        mine = (local >= 0) & (local < len(batch))
        rows[mine.to(rows.device)] = batch[local[mine].to(batch.device)]
    all_reduce(rows)
    return rows


def all_reduce(*tensors: Tensor) -> None:
    """Sum each tensor over all processes, in place; nothing to do in a single one. Collective."""
    if _distributed():
        for tensor in tensors:
            dist.all_reduce(tensor)


def _gather_sizes(sizes: list[int]) -> Tensor:
    """Rows of each micro-batch on each process, (n_micro, n_ranks)."""
    if not _distributed():
        return torch.tensor(sizes)[:, None]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, sizes)
    return torch.tensor(everyone).T


def _distributed() -> bool:
    """Whether several processes train together, asked at every call: a cached answer may predate the group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
