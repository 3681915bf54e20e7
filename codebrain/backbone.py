"""EEGSSM, the backbone of CodeBrain: patches in, one feature vector per patch out.

Patch embedding, then residual blocks that join a global convolution (SGConv) with sliding-window attention under a
gate, then the sum of what the blocks put aside ("skip"). Any number of channels and patches goes through one instance.

Shapes: B batch, C channels, P patches per channel, L samples per patch, N = C * P tokens (channel-major), D width.
Between the embedding and the output, tensors are (D, B, N): width first, see sgconv.py.
"""

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from codebrain.attention import SlidingWindowAttention, project
from codebrain.patches import amplitude
from codebrain.sgconv import SGConv

N_HEADS = 4
"""Attention heads of a block."""

KERNELS_PER_FEATURE = 4
"""Output channels of SGConv."""

POSITIVE_SIZES = (
    *("patch_size", "res_channels", "skip_channels", "out_channels", "num_res_layers"),
    *("conv_out_chans", "conv_groups", "proj_kernel_size", "proj_refine_kernel"),
)
"""Sizes of which there must be at least one."""

SPECTRAL_GAIN = 100.0
"""Factor on the first weights of the spectrum's projection. A rhythm of ten microvolts has an amplitude of a twentieth
in these units (|rfft| / L of microvolts / 100) and a broad band far less, while what the filters make of the waveform
is of order one: drawn as usual, the projection gives a hundredth of that, and training hardly finds the spectrum.
Weights that are loaded replace the first ones."""

WHOLE_NUMBERS = (*POSITIVE_SIZES, "s4_lmax", "proj_padding", "swa_window_size")
"""Sizes that are counts."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Sizes of the backbone, under braindecode's names. The defaults are those of the released weights."""

    patch_size: int = 200
    """Samples per patch: one second at 200 Hz."""
    res_channels: int = 200
    """Width of the residual stream, D. Inside a block it is twice as wide, and must then be a multiple of 4 heads."""
    skip_channels: int = 200
    """Width of what the blocks put aside and add up."""
    out_channels: int = 200
    """Width of the features."""
    num_res_layers: int = 8
    """Residual blocks."""
    drop_prob: float = 0.1
    """Dropout in the global convolution (whole features) and on attention weights."""
    s4_bidirectional: bool = True
    """Whether the global convolution sees later tokens too."""
    s4_layernorm: bool = False
    """Whether LayerNorm stands before the projection of the global convolution. The released weights have none."""
    s4_lmax: int = 570
    """Tokens that the global convolution reaches, rounded up to a power of two. Longer windows are allowed."""
    conv_out_chans: int = 25
    """Filters of the patch embedding, and its stride in samples."""
    conv_groups: int = 5
    """Groups of the GroupNorms in the patch embedding."""
    proj_kernel_size: int = 49
    """Samples under the first filter of the patch embedding."""
    proj_padding: int = 24
    """Zeros before and after a patch under the first filter, in samples."""
    proj_refine_kernel: int = 3
    """Size of the two filters that follow; odd."""
    pos_kernel: tuple[int, int] = (19, 7)
    """Neighbourhood of the positional convolution: (channels, patches); both odd."""
    spectral_dropout: float = 0.1
    """Dropout after the projection of a patch's amplitude spectrum."""
    swa_window_size: int = 1
    """Tokens that attention sees, the token itself included; odd. 1 in the released weights."""
    swa_within_channel: bool = False
    """Whether a window stops at its channel's edge. Tokens lie channel after channel: by default, as in the released
    code, a window at the end of a channel sees the start of the next one."""
    checkpoint_blocks: bool = False
    """Whether training keeps no activations inside a block and computes them again: far less memory for more time."""

    def __post_init__(self) -> None:
        self._check_kinds()
        # A YAML file and a JSON file hold a pair as a list.
        object.__setattr__(self, "pos_kernel", tuple(self.pos_kernel))
        for name in POSITIVE_SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("drop_prob", "spectral_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 (included) and 1")
        if self.swa_window_size < 1 or self.swa_window_size % 2 == 0:
            raise ValueError(f"swa_window_size={self.swa_window_size} must be odd: 1, 3, 5, ...")
        if 2 * self.res_channels % N_HEADS:
            raise ValueError(
                f"res_channels={self.res_channels} must be even: a block is twice as wide, for {N_HEADS} heads"
            )
        if self.s4_lmax < 2:
            raise ValueError(f"s4_lmax={self.s4_lmax} must be at least 2 tokens")
        if self.conv_out_chans % self.conv_groups:
            raise ValueError(
                f"conv_out_chans={self.conv_out_chans} must be a multiple of conv_groups={self.conv_groups}"
            )
        if self.proj_padding < 0 or self.emb_dim < 1:
            raise ValueError(
                f"a first filter of proj_kernel_size={self.proj_kernel_size} with proj_padding={self.proj_padding}, "
                f"0 or more, must fit into a patch of patch_size={self.patch_size}"
            )
        if any(size < 1 or size % 2 == 0 for size in (*self.pos_kernel, self.proj_refine_kernel)):
            raise ValueError(
                f"pos_kernel={self.pos_kernel} and proj_refine_kernel={self.proj_refine_kernel} must be odd: an even "
                "filter would change the number of channels, patches or samples"
            )

    def _check_kinds(self) -> None:
        for name in WHOLE_NUMBERS:
            if not isinstance(getattr(self, name), Integral):
                raise TypeError(f"{name}={getattr(self, name)!r} must be a whole number")
        pair = self.pos_kernel
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(size, Integral) for size in pair)):
            raise TypeError(f"pos_kernel={pair!r} must be two whole numbers: (channels, patches), such as (19, 7)")

    @property
    def emb_dim(self) -> int:
        """Width of a patch's embedding: filters times the steps that the first filter makes in a patch."""
        steps = (self.patch_size + 2 * self.proj_padding - self.proj_kernel_size) // self.conv_out_chans + 1
        return self.conv_out_chans * steps


class EEGSSM(nn.Module):
    """Features of EEG patches.

    Parameters
    ----------
    config : BackboneConfig
    activation : type of nn.Module
        Non-linearity of the input and output projections.
    """

    def __init__(self, config: BackboneConfig, activation: type[nn.Module] = nn.ReLU):
        if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
            raise TypeError(f"activation={activation!r} must be a class of modules, such as torch.nn.ReLU")
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config)
        self.input = WeightNormProjection(config.emb_dim, config.res_channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(config, is_last=index == config.num_res_layers - 1) for index in range(config.num_res_layers)
        )
        self.gather = WeightNormProjection(config.skip_channels, config.skip_channels)
        self.output = nn.Linear(config.skip_channels, config.out_channels)
        self.activation = activation()
        self.norm = nn.LayerNorm(config.out_channels)

    @property
    def is_braindecodes(self) -> bool:
        """Whether ``braindecode.models.CodeBrain`` can have these sizes and weights, and computes the same with them.

        Its attention reaches over the edges of channels, which a window of one token does not, and its two activations
        would have two sets of weights.
        """
        within_channel = self.config.swa_within_channel and self.config.swa_window_size > 1
        return not within_channel and not self.activation.state_dict()

    def forward(self, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the features (B, C, P, D) of patches (B, C, P, L) in model units (microvolts / 100).

        ``mask`` (B, C, P), bool or 0/1, hides the patches where it is 1: the model sees a constant in their place.
        """
        n_chans, n_patches = patches.shape[1:3]
        embedded = self.patch_embedding(patches, mask)
        x = embedded.flatten(1, 2).permute(2, 0, 1)
        x = first = self.activation(self.input(x))
        skip: Tensor | float = 0.0
        for block in self.blocks:
            if self.config.checkpoint_blocks and torch.is_grad_enabled():
                x, put_aside = checkpoint(block, x, first, n_patches, use_reentrant=False)
            else:
                x, put_aside = block(x, first, n_patches)
            skip = skip + put_aside
        out = self.activation(self.gather(skip * math.sqrt(1 / len(self.blocks))))
        out = project(out, self.output.weight, self.output.bias)
        return self.norm(out.permute(1, 2, 0)).unflatten(1, (n_chans, n_patches))


class PatchEmbedding(nn.Module):
    """Embed each patch by its waveform and its amplitude spectrum, then add what its neighbours say about its place.

    GroupNorm takes its statistics over all patches of a window, so a patch's embedding depends on the whole window.
    """

    def __init__(self, config: BackboneConfig):
        super().__init__()
        n_filters, refine = config.conv_out_chans, config.proj_refine_kernel
        # Never trained and zero in the released weights: a hidden patch is silence, not a learnt token.
        self.mask_encoding = nn.Parameter(torch.zeros(config.emb_dim), requires_grad=False)
        self.temporal = nn.Sequential(
            nn.Conv2d(
                1, n_filters, (1, config.proj_kernel_size), stride=(1, n_filters), padding=(0, config.proj_padding)
            ),
            nn.GroupNorm(config.conv_groups, n_filters),
            nn.GELU(),
            nn.Conv2d(n_filters, n_filters, (1, refine), padding=(0, refine // 2)),
            nn.GroupNorm(config.conv_groups, n_filters),
            nn.GELU(),
            nn.Conv2d(n_filters, n_filters, (1, refine), padding=(0, refine // 2)),
            nn.GroupNorm(config.conv_groups, n_filters),
            nn.GELU(),
        )
        self.spectral = nn.Linear(config.patch_size // 2 + 1, config.emb_dim)
        with torch.no_grad():
            self.spectral.weight.mul_(SPECTRAL_GAIN)
        self.spectral_dropout = nn.Dropout(config.spectral_dropout)
        rows, columns = config.pos_kernel
        self.positional = nn.Conv2d(
            config.emb_dim, config.emb_dim, (rows, columns), padding=(rows // 2, columns // 2), groups=config.emb_dim
        )

    def forward(self, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embed patches (B, C, P, L) as (B, C, P, D), with those hidden that ``mask`` (B, C, P) names."""
        n_chans, n_patches = patches.shape[1:3]
        if mask is not None:
            patches = self._hide(patches, mask)
        waveform = self.temporal(patches.flatten(1, 2).unsqueeze(1))  # (B, filters, N, steps)
        waveform = waveform.transpose(1, 2).flatten(2).unflatten(1, (n_chans, n_patches))
        spectrum = self.spectral_dropout(self.spectral(amplitude(patches).to(patches.dtype)))
        embedded = waveform + spectrum
        return embedded + self.positional(embedded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _hide(self, patches: Tensor, mask: Tensor) -> Tensor:
        if not isinstance(mask, Tensor):
            raise TypeError(f"mask is a {type(mask).__name__}, expected a tensor: torch.as_tensor(mask)")
        if mask.shape != patches.shape[:3]:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}, expected one value per patch: (batch, channels, patches) = "
                f"{tuple(patches.shape[:3])}"
            )
        if len(self.mask_encoding) != patches.shape[-1]:
            raise ValueError(
                f"a hidden patch of {patches.shape[-1]} samples is replaced by mask_encoding, which has "
                f"{len(self.mask_encoding)} (the embedding's width): masks need patch_size to equal that width"
            )
        return torch.where(mask.bool().unsqueeze(-1), self.mask_encoding.to(patches.dtype), patches)


class ResidualBlock(nn.Module):
    """Convolution, SGConv and attention under a gate; what comes out goes on and, separately, is put aside.

    The convolution sees the running stream *before* normalisation plus the embedded input, as in the released code.
    """

    def __init__(self, config: BackboneConfig, *, is_last: bool):
        super().__init__()
        width = config.res_channels
        self.within_channel = config.swa_within_channel
        self.is_last = is_last
        self.norm = RMSNorm(width)
        self.expand = WeightNormProjection(width, 2 * width, kernel_size=3)
        self.sgconv = SGConv(
            2 * width,
            config.s4_lmax,
            n_channels=KERNELS_PER_FEATURE,
            bidirectional=config.s4_bidirectional,
            dropout=config.drop_prob,
            layer_norm=config.s4_layernorm,
        )
        self.attention: SlidingWindowAttention | None = SlidingWindowAttention(
            2 * width, N_HEADS, config.swa_window_size, config.drop_prob
        )
        self.residual = WeightNormProjection(width, width)
        self.skip = WeightNormProjection(width, config.skip_channels)
        if is_last:
            # The stream ends here. These weights stay for the checkpoints that have them; training that
            # waits for every gradient (DistributedDataParallel) must not wait for theirs.
            self.norm.requires_grad_(False)
            self.residual.requires_grad_(False)

    def forward(self, x: Tensor, first: Tensor, n_patches: int) -> tuple[Tensor, Tensor]:
        """Return the stream (D, B, N), unchanged by the last block, and what is put aside (skip channels, B, N)."""
        hidden = self.sgconv(F.gelu(self.expand(x + first)))
        if self.attention is not None:  # folding.py takes it out where it is linear
            hidden = hidden + self.attention(hidden, n_patches if self.within_channel else None)
        signal, gate = hidden.chunk(2)
        out = signal.tanh() * gate.sigmoid()
        if not self.is_last:
            x = (self.norm(x) + self.residual(out)) * math.sqrt(0.5)
        return x, self.skip(out)


class RMSNorm(nn.Module):
    """Divide each token of (D, B, N) by the root of its mean square, in float32 at least, and scale it."""

    def __init__(self, width: int, eps: float = 1e-8):
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (D, B, N) normalised over D."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        rms = torch.linalg.vector_norm(x, dim=0, keepdim=True, dtype=dtype) / math.sqrt(len(x))
        return (x / (rms + self.eps) * self.scale[:, None, None]).to(x.dtype)


class WeightNormProjection(nn.Module):
    """Linear map, or convolution over three tokens, whose weight is a direction and a length per output.

    weight = weight_g * weight_v / |weight_v|     (Salimans and Kingma 2016, arXiv 1602.07868)
    """

    def __init__(self, n_inputs: int, n_outputs: int, kernel_size: int = 1):
        super().__init__()
        conv = nn.Conv1d(n_inputs, n_outputs, kernel_size)
        assert conv.bias is not None
        self.kernel_size = kernel_size
        self.bias = conv.bias
        self.weight_g = nn.Parameter(conv.weight.detach().flatten(1).norm(dim=1))
        self.weight_v = nn.Parameter(nn.init.kaiming_normal_(conv.weight.detach()))

    @property
    def weight(self) -> Tensor:
        """The weight as a matrix (outputs, kernel size * inputs), tap after tap."""
        length = torch.linalg.vector_norm(self.weight_v, dim=(1, 2), keepdim=True)
        return (self.weight_v * (self.weight_g[:, None, None] / length)).transpose(1, 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (inputs, B, N) to (outputs, B, N)."""
        return project_taps(x, self.weight, self.bias, self.kernel_size)


def project_taps(x: Tensor, weight: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """Map (inputs, B, N) by a weight (outputs, kernel_size * inputs), for one tap or three.

    Three taps side by side, with zeros beyond the ends, make a convolution one matrix product.
    """
    if kernel_size == 3:
        padded = F.pad(x, (1, 1))
        x = torch.cat([padded[..., :-2], x, padded[..., 2:]])
    return project(x, weight, bias)
