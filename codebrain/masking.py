"""Which patches are hidden from the model: True (1) is hidden, everywhere in this project.

Every function draws from a CPU generator that the caller owns, so that a mask is a function of its seed alone, on any
device. Shapes: B batch, C channels, P patches per channel.
"""

import torch
from torch import Tensor


def bernoulli(shape: tuple[int, int, int], ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide every patch with the same probability, independently (the paper's mask, with ratio 0.5).

    At least one patch of each window is hidden, so that no window is without a target. This changes a draw only where
    the coin hid nothing at all: the patch hidden then is the one whose draw came nearest.

    Parameters
    ----------
    shape : (B, C, P)
    ratio : float
        Probability of being hidden, in (0, 1).
    generator : torch.Generator, optional
        On the CPU.

    Returns
    -------
    bool Tensor (B, C, P), True = hidden.
    """
    _check_ratio(ratio)
    draw = torch.rand(shape, generator=generator)
    return (draw < ratio) | (draw == draw.amin(dim=(1, 2), keepdim=True))


def exact(shape: tuple[int, int, int], ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide the same number of patches in every window: ``round(ratio * C * P)``, and at least one.

    Parameters and return value are those of :func:`bernoulli`.
    """
    _check_ratio(ratio)
    batch, n_chans, n_patches = shape
    n_hidden = max(1, round(ratio * n_chans * n_patches))
    rank = torch.rand(batch, n_chans * n_patches, generator=generator).argsort(dim=1).argsort(dim=1)
    return (rank < n_hidden).view(shape)


def blocks(
    shape: tuple[int, int, int],
    ratio: float,
    block: tuple[int, int],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide whole rectangles of neighbouring channels and patches, a harder task than single patches.

    The (C, P) plane of each window is tiled with rectangles, the tiling shifted at random, and every rectangle is
    hidden with probability ``ratio``. ``block=(C, k)`` hides spans of k patches on all channels at once,
    ``block=(1, P)`` whole channels.

    Parameters
    ----------
    shape : (B, C, P)
    ratio : float
        Probability of being hidden, in (0, 1).
    block : (channels, patches)
        Size of a rectangle.
    generator : torch.Generator, optional
        On the CPU.

    Returns
    -------
    bool Tensor (B, C, P), True = hidden; at least one rectangle of each window is.
    """
    _check_ratio(ratio)
    batch, n_chans, n_patches = shape
    if not (1 <= block[0] <= n_chans and 1 <= block[1] <= n_patches):
        raise ValueError(
            f"block {block} must fit into (channels, patches) = {(n_chans, n_patches)} and be at least (1, 1)"
        )
    # A rectangle as large as the plane's side is not shifted: it is meant to cover it.
    row = _tile_of(batch, n_chans, block[0], generator)
    column = _tile_of(batch, n_patches, block[1], generator)
    n_tiles = (batch, int(row.max()) + 1, int(column.max()) + 1)
    tile = row[:, :, None] * n_tiles[2] + column[:, None, :]
    draw = torch.rand(n_tiles, generator=generator).flatten(1).gather(1, tile.flatten(1)).view(shape)
    return (draw < ratio) | (draw == draw.amin(dim=(1, 2), keepdim=True))


def _tile_of(batch: int, size: int, block: int, generator: torch.Generator | None) -> Tensor:
    """Return the tile (B, size) that each position lies in, for a tiling shifted at random in each window."""
    shift = torch.randint(block if block < size else 1, (batch, 1), generator=generator)
    return (torch.arange(size) + shift) // block


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise ValueError(f"mask ratio {ratio} must lie between 0 and 1, both excluded")
