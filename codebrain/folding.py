"""A model made smaller for inference: what training needs and inference does not is multiplied out.

Weight normalisation becomes a plain weight. Where attention has a window of 1, it is linear in what SGConv's projection
gives, h + W_o (W_v h + b_v) + b_o, so it disappears into that projection. The outputs stay the same up to rounding.
"""

import copy
from typing import TypeVar

from torch import Tensor, nn

from codebrain.attention import SlidingWindowAttention
from codebrain.backbone import ResidualBlock, WeightNormProjection, project_taps
from codebrain.hub import HubModel

Model = TypeVar("Model", bound=nn.Module)


def fold(model: Model) -> Model:
    """Return a copy of a model that gives the same results with less work, in evaluation mode and without gradients.

    The copy is for inference only: it cannot be trained, its ``state_dict`` fits no other model, and its
    ``save_pretrained`` and ``reset_head`` raise a ValueError.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if isinstance(module, HubModel):
            module.folded = True
        for name, child in list(module.named_children()):
            if isinstance(child, WeightNormProjection):
                setattr(module, name, FoldedProjection(child))
        if isinstance(module, ResidualBlock):
            _fold_attention(module)
    return folded


class FoldedProjection(nn.Module):
    """A weight-normalised projection whose weight has been multiplied out."""

    weight: Tensor
    bias: Tensor

    def __init__(self, projection: WeightNormProjection):
        super().__init__()
        self.kernel_size = projection.kernel_size
        self.register_buffer("weight", projection.weight.detach())
        self.register_buffer("bias", projection.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map (inputs, B, N) to (outputs, B, N)."""
        return project_taps(x, self.weight, self.bias, self.kernel_size)


def _fold_attention(block: ResidualBlock) -> None:
    attention, out = block.attention, block.sgconv.out
    if not isinstance(attention, SlidingWindowAttention) or attention.window_size > 1:
        return
    weight, bias = attention.double().as_linear()
    out.bias.copy_(out.bias + weight @ out.bias.double() + bias)
    out.weight.copy_(out.weight + weight @ out.weight.double())
    block.attention = None
