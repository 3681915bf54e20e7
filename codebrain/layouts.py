"""What the tensors of a backbone are called, in the three layouts that are read.

ours         backbone.blocks.3.sgconv.kernel            one tensor (rows, features, taps of all scales)
braindecode  residual_layer.residual_blocks.3.sgconv.kernel_list.0 ... .9
upstream     module.residual_layer.residual_blocks.3.S41.kernel_list.0.kernel ... , weight_g / weight_v, sn, D
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from codebrain.sgconv import DECAY, TAPS, n_scales, norm_of_kernel

RELEASED_LMAX = 570
"""``s4_lmax`` of the released weights: a kernel's shape tells it up to the next power of two only."""

_UPSTREAM_TO_BRAINDECODE = (
    (re.compile(r"^(module\.|_orig_mod\.)+"), ""),
    (re.compile(r"\.S41\."), ".sgconv."),
    (re.compile(r"\.sn\."), ".rms_norm."),
    (re.compile(r"\.D$"), ".skip_weight"),
    (re.compile(r"\.kernel_list\.(\d+)\.kernel$"), r".kernel_list.\1"),
    (re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
)

_BLOCK = "residual_layer.residual_blocks."
_BRAINDECODE_TO_OURS = (
    ("patch_embedding.proj_in.", "backbone.patch_embedding.temporal."),
    ("patch_embedding.spectral_proj.0.", "backbone.patch_embedding.spectral."),
    ("patch_embedding.positional_encoding.0.", "backbone.patch_embedding.positional."),
    ("patch_embedding.mask_encoding", "backbone.patch_embedding.mask_encoding"),
    ("init_conv.0.conv.", "backbone.input."),
    ("final_conv.0.conv.", "backbone.gather."),
    ("final_conv.2.conv.", "backbone.output."),
    ("norm.", "backbone.norm."),
    ("lm_head_t.", "head_t."),
    ("lm_head_f.", "head_f."),
    ("final_layer.", "final_layer."),
)
_BRAINDECODE_TO_OURS_IN_BLOCK = (
    ("rms_norm.", "norm."),
    ("conv_layer.conv.", "expand."),
    ("sgconv.output_linear.", "sgconv.out."),
    ("sgconv.skip_weight", "sgconv.skip"),
    ("sgconv.", "sgconv."),
    ("attention.", "attention."),
    ("res_conv.", "residual."),
    ("skip_conv.", "skip."),
)
_WEIGHT_NORM = (("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v"))


def to_ours(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring a ``state_dict`` of any of the three layouts into ours.

    Names that no layout has are kept, so that whoever loads the result can report them.

    Raises
    ------
    ValueError
        If a kernel was made with a decay other than 2, which this model cannot express.
    """
    plain = {_apply(_UPSTREAM_TO_BRAINDECODE[:1], name): value for name, value in state_dict.items()}
    if any(name.startswith("backbone.") for name in plain):
        return plain
    named = {_apply(_UPSTREAM_TO_BRAINDECODE, name): value for name, value in plain.items()}
    ours = {_rename(name, inverse=False): _to_our_shape(name, value) for name, value in named.items()}
    for prefix in sorted({name.rpartition("kernel_list.")[0] for name in ours if ".kernel_list." in name}):
        _join_kernels(ours, prefix)
    return ours


def to_braindecode(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a ``state_dict`` of any layout braindecode's names and shapes, as its ``CodeBrain`` loads strictly."""
    theirs: dict[str, Tensor] = {}
    for name, value in to_ours(state_dict).items():
        target = _rename(name, inverse=True)
        if name.endswith(".sgconv.kernel"):
            prefix = target.removesuffix("kernel")
            for index, kernel in enumerate(value.split(TAPS, dim=-1)):
                theirs[f"{prefix}kernel_list.{index}"] = kernel.contiguous()
            theirs[f"{prefix}multiplier"] = torch.full((1, value.shape[1], 1), DECAY, dtype=value.dtype)
            theirs[f"{prefix}kernel_norm_initialized"] = torch.tensor(True)
        elif name.endswith(".weight_g"):
            theirs[target] = value[:, None, None]
        elif name.endswith(".sgconv.kernel_norm") or name == "backbone.output.weight":
            theirs[target] = value.unsqueeze(-1)
        elif name.endswith(".norm.scale"):
            theirs[target] = value[None, :, None]
        else:
            theirs[target] = value
    return theirs


def _apply(rules: Iterable[tuple[re.Pattern[str], str]], name: str) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def _rename(name: str, *, inverse: bool) -> str:
    """Translate one name between braindecode's layout and ours; a name without a translation stays as it is."""
    here, there = ("backbone.blocks.", _BLOCK) if inverse else (_BLOCK, "backbone.blocks.")
    if name.startswith(here):
        index, _, rest = name.removeprefix(here).partition(".")
        return f"{there}{index}.{_swap(rest, _BRAINDECODE_TO_OURS_IN_BLOCK, inverse)}"
    return _swap(name, _BRAINDECODE_TO_OURS, inverse)


def _swap(name: str, table: Iterable[tuple[str, str]], inverse: bool) -> str:
    for theirs, ours in table:
        old, new = (ours, theirs) if inverse else (theirs, ours)
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for theirs, ours in _WEIGHT_NORM:
        old, new = (ours, theirs) if inverse else (theirs, ours)
        if name.endswith("." + old):
            return name.removesuffix(old) + new
    return name


def _to_our_shape(name: str, value: Tensor) -> Tensor:
    """Drop the dimensions of size one that braindecode's tensors carry and ours do not."""
    if name.endswith((".weight.original0", ".rms_norm.scale")):
        return value.flatten()
    if name.endswith(".kernel_norm") or name == "final_conv.2.conv.weight":
        return value.squeeze(-1)
    return value


def _join_kernels(ours: dict[str, Tensor], prefix: str) -> None:
    """Replace the kernels of one SGConv by one tensor, and its constants by the norm that they lead to."""
    names = [name for name in ours if name.startswith(f"{prefix}kernel_list.")]
    in_order = [f"{prefix}kernel_list.{index}" for index in range(len(names))]
    if set(names) != set(in_order):
        raise ValueError(
            f"the kernels {prefix}kernel_list. are not 0, 1, 2 ... but {some(sorted(names))}: one is missing"
        )
    kernel = torch.cat([ours.pop(name) for name in in_order], dim=-1)
    decay = ours.pop(f"{prefix}multiplier", None)
    if decay is not None and not torch.all(decay == DECAY):
        raise ValueError(
            f"{prefix}multiplier is {decay.flatten()[0].item()}, but only kernels with a decay of {DECAY} can be loaded"
        )
    ours[f"{prefix}kernel"] = kernel
    initialized = ours.pop(f"{prefix}kernel_norm_initialized", None)
    if initialized is not None and not initialized:
        # Saved before the first forward pass, which is when that code would have taken the norm.
        ours[f"{prefix}kernel_norm"] = norm_of_kernel(kernel)


def infer_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of a model off its tensors (our layout), for files that come without a config.json.

    What leaves no trace in a shape stays at its default, that of the released model: attention window, dropout,
    activation, groups and padding of the patch embedding.
    """

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            raise ValueError(
                f"these are no weights of a CodeBrain backbone: there is no {name} among {some(state_dict)}"
            )
        return state_dict[name].shape

    rows, width, taps = shape("backbone.blocks.0.sgconv.kernel")
    n_channels = shape("backbone.blocks.0.sgconv.skip")[0]
    scales = taps // TAPS
    positional = shape("backbone.patch_embedding.positional.weight")
    first = shape("backbone.patch_embedding.temporal.0.weight")
    config: dict[str, Any] = {
        "patch_size": 2 * (shape("backbone.patch_embedding.spectral.weight")[1] - 1),
        "res_channels": width // 2,
        "skip_channels": shape("backbone.gather.weight_v")[0],
        "out_channels": shape("backbone.output.weight")[0],
        "num_res_layers": len({name.split(".")[2] for name in state_dict if name.startswith("backbone.blocks.")}),
        "s4_bidirectional": rows == 2 * n_channels,
        "s4_layernorm": "backbone.blocks.0.sgconv.norm.weight" in state_dict,
        "conv_out_chans": first[0],
        "proj_kernel_size": first[-1],
        "proj_padding": first[-1] // 2,
        "proj_refine_kernel": shape("backbone.patch_embedding.temporal.3.weight")[-1],
        "pos_kernel": tuple(positional[-2:]),
    }
    config["s4_lmax"] = RELEASED_LMAX if n_scales(RELEASED_LMAX) == scales else 2**scales
    for argument, head in (("codebook_size_t", "head_t.weight"), ("codebook_size_f", "head_f.weight")):
        if head in state_dict:
            config[argument] = len(state_dict[head])
    return config


def some(names: Iterable[Any], limit: int = 4) -> str:
    """The first of some names, and how many more there are."""
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
