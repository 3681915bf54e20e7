"""A stage-1 tokenizer in the published form (LaBraM, CodeBrain), written from its description, to measure against.

The same sizes as `TokenizerConfig`'s: convolutional patch embedding, pre-norm transformer with explicit softmax
attention, two quantisers with the full distance matrix and one-hot moving averages, three-block decoders, and NT-Xent
through a broadcast cosine similarity.

Shapes: B windows, C channels, P patches, L samples, N tokens of a window, D width, K codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Softmax attention whose N x N weights exist for all windows and heads at once."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens (B, N, D) of each window."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(-1)  # (B, heads, N, N)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, n_heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Refine the tokens (B, N, D)."""
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Quantizer(nn.Module):
    """EMA codebook on the sphere: every distance and every one-hot row exists at once."""

    embed: Tensor
    cluster_size: Tensor

    def __init__(self, dim: int, n_codes: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("embed", F.normalize(torch.randn(n_codes, dim), dim=-1))
        self.register_buffer("cluster_size", torch.zeros(n_codes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes of vectors (..., dim), and the moving averages in training."""
        x = F.normalize(x, dim=-1)
        flat = x.flatten(0, -2)
        distance = flat.square().sum(1, keepdim=True) + self.embed.square().sum(1) - 2 * flat @ self.embed.T  # (n, K)
        codes = distance.argmin(1)
        one_hot = F.one_hot(codes, len(self.embed)).type(flat.dtype)  # (n, K)
        quantized = F.embedding(codes, self.embed).view_as(x)
        if self.training:
            with torch.no_grad():
                hits = one_hot.sum(0)
                self.cluster_size.lerp_(hits, 1 - self.decay)
                mean = F.normalize((flat.T @ one_hot).T / hits.clamp(min=1)[:, None], dim=-1)
                mean = torch.where((hits == 0)[:, None], self.embed, mean)
                self.embed.copy_(F.normalize(self.embed.lerp(mean, 1 - self.decay), dim=-1))
        loss = F.mse_loss(quantized.detach(), x)
        return x + (quantized - x).detach(), codes, loss


class NaiveTokenizer(nn.Module):
    """Encoder, two quantisers, two decoders, losses."""

    def __init__(
        self,
        n_chans: int = 19,
        n_patches: int = 30,
        width: int = 200,
        n_layers: int = 12,
        n_heads: int = 10,
        decoder_layers: int = 3,
        n_codes: int = 4096,
        code_dim: int = 32,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, kernel, stride, padding in ((1, 15, 8, 7), (8, 3, 1, 1), (8, 3, 1, 1)):
            layers += [nn.Conv1d(n_in, 8, kernel, stride, padding), nn.GroupNorm(4, 8), nn.GELU()]
        self.embed = nn.Sequential(*layers)
        self.place = nn.Parameter(torch.zeros(n_chans, 1, width))
        self.time = nn.Parameter(torch.zeros(n_patches, width))
        self.encoder = nn.Sequential(*[Block(width, n_heads) for _ in range(n_layers)], nn.LayerNorm(width))
        self.to_codes = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, code_dim)) for _ in range(2)
        )
        self.quantizers = nn.ModuleList(Quantizer(code_dim, n_codes) for _ in range(2))
        self.decoders = nn.ModuleList(
            nn.Sequential(
                nn.Linear(code_dim, width),
                *[Block(width, n_heads) for _ in range(decoder_layers)],
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.Tanh(),
                nn.Linear(width, size),
            )
            for size in (200, 400)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The published loss of windows (B, C, P, 200) in microvolts / 100."""
        tokens = self.embed(x.flatten(0, 2)[:, None]).flatten(1)[:, : self.time.shape[-1]].unflatten(0, x.shape[:3])
        features = self.encoder((tokens + self.place + self.time).flatten(1, 2))
        spectrum = torch.fft.fft(x)
        targets = (x, torch.cat([zscore(spectrum.abs()), zscore(spectrum.angle())], dim=-1))
        loss = nt_xent(features.unflatten(1, x.shape[1:3]))
        for to_code, quantizer, decoder, target in zip(
            self.to_codes, self.quantizers, self.decoders, targets, strict=True
        ):
            quantized, _, commitment = quantizer(to_code(features))
            loss = loss + commitment + F.mse_loss(decoder(quantized), target.flatten(1, 2))
        return loss


def zscore(x: Tensor) -> Tensor:
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


def nt_xent(features: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent through a (2B, 2B, C*P/2*D) broadcast."""
    views = torch.cat([half.flatten(1) for half in features.chunk(2, dim=2)])
    similarity = F.cosine_similarity(views[:, None], views[None], dim=-1) / temperature
    n = len(views)
    similarity = similarity.masked_fill(torch.eye(n, dtype=torch.bool, device=views.device), -torch.inf)
    return F.cross_entropy(similarity, (torch.arange(n, device=views.device) + n // 2) % n)
