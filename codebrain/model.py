"""CodeBrain, a classifier or feature extractor for EEG, and MaskedTokenModel, which pre-trains its backbone.

Shapes: B batch, C channels, T samples per channel, P patches per channel, N = C * P, D feature width, K codes.
Both models take signals in model units, microvolts / 100 (``codebrain.patches.to_model_units``).
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from codebrain.backbone import EEGSSM, BackboneConfig
from codebrain.hub import HubModel
from codebrain.patches import (
    SCALE_UV,
    PatchLengthWarning,
    UnitWatch,
    complete_window,
    is_rate,
    patchify,
    require_finite,
)

SIZES = tuple(field.name for field in dataclasses.fields(BackboneConfig))
"""Constructor arguments that are the backbone's."""

EXTENSIONS = ("swa_within_channel", "checkpoint_blocks")
"""Constructor arguments that braindecode's class lacks: a config names them where they are on, and is braindecode's too
where they are off."""


class CodeBrain(HubModel, nn.Module):
    """Backbone with a classifier, a drop-in for ``braindecode.models.CodeBrain``.

    Any two of ``n_times``, ``sfreq`` and ``input_window_seconds`` give the third. Without ``n_outputs`` there is no
    classifier and the model gives features; these take any number of channels and patches.

    Parameters
    ----------
    n_outputs : int, optional
        Classes (or regression targets).
    n_chans : int, optional
        Channels that the classifier is built for; taken from ``chs_info`` if that is given.
    chs_info : list of dict, optional
        ``info["chs"]`` of an MNE recording.
    n_times : int, optional
        Samples per channel that the classifier is built for. Those after the last whole patch are not used.
    input_window_seconds : float, optional
        Length of a window in seconds.
    sfreq : float, optional
        Sampling rate in Hz. A warning says so where a patch is not one second then, as it is in the released weights.
    mlp_hidden_multiplier : int
        Width of the classifier's first layer, in units of ``out_channels``.
    codebook_size_t, codebook_size_f : int
        Codes K of the temporal and the frequency head.
    pretrain_mode : bool
        Whether ``forward`` returns the code logits instead of the classes.
    s4_d_state : int
        Accepted for compatibility, as in the released code: nothing depends on it.
    activation : type of nn.Module
        Non-linearity of the backbone's input and output projections.
    patch_size, res_channels, skip_channels, out_channels, num_res_layers, drop_prob, s4_bidirectional, s4_layernorm, \
    s4_lmax, conv_out_chans, conv_groups, proj_kernel_size, proj_padding, proj_refine_kernel, pos_kernel, \
    spectral_dropout, swa_window_size, swa_within_channel, checkpoint_blocks
        See :class:`codebrain.BackboneConfig`. ``drop_prob`` is the classifier's dropout too.

    Raises
    ------
    TypeError
        If an argument is of another kind, such as the name of an activation instead of its class.
    ValueError
        If sizes contradict each other, or one that the classifier needs is missing.

    References
    ----------
    Ma et al., "CodeBrain: Bridging Decoupled Tokenizer and Multi-Scale Architecture for EEG Foundation Model",
    arXiv 2506.09110.
    """

    def __init__(
        self,
        n_outputs: int | None = None,
        n_chans: int | None = None,
        chs_info: Sequence[Mapping[str, Any]] | None = None,
        n_times: int | None = None,
        input_window_seconds: float | None = None,
        sfreq: float | None = None,
        patch_size: int = 200,
        res_channels: int = 200,
        skip_channels: int = 200,
        out_channels: int = 200,
        num_res_layers: int = 8,
        drop_prob: float = 0.1,
        s4_bidirectional: bool = True,
        s4_layernorm: bool = False,
        s4_lmax: int = 570,
        s4_d_state: int = 64,
        conv_out_chans: int = 25,
        conv_groups: int = 5,
        proj_kernel_size: int = 49,
        proj_padding: int = 24,
        proj_refine_kernel: int = 3,
        pos_kernel: tuple[int, int] = (19, 7),
        spectral_dropout: float = 0.1,
        mlp_hidden_multiplier: int = 4,
        swa_window_size: int = 1,
        codebook_size_t: int = 4096,
        codebook_size_f: int = 4096,
        pretrain_mode: bool = False,
        activation: type[nn.Module] = nn.ReLU,
        swa_within_channel: bool = False,
        checkpoint_blocks: bool = False,
    ):
        arguments = {name: value for name, value in locals().items() if name not in {"self", "__class__"}}
        super().__init__()
        self._arguments = arguments
        self._n_outputs = n_outputs
        self._n_chans = _channel_count(n_chans, chs_info)
        self._chs_info = chs_info
        self._n_times, self._input_window_seconds, self._sfreq = complete_window(n_times, input_window_seconds, sfreq)
        _warn_of_rate(self._sfreq, patch_size)
        for name in ("mlp_hidden_multiplier", "codebook_size_t", "codebook_size_f"):
            if arguments[name] < 1:
                raise ValueError(f"{name}={arguments[name]} must be at least 1")
        self.patch_size = patch_size
        self.out_channels = out_channels
        self.drop_prob = drop_prob
        self.mlp_hidden_multiplier = mlp_hidden_multiplier
        self.pretrain_mode = pretrain_mode
        self._units = UnitWatch(SCALE_UV)
        self._warned_of_length = False

        self.backbone = EEGSSM(BackboneConfig(**{name: arguments[name] for name in SIZES}), activation)
        self.head_t = nn.Linear(out_channels, codebook_size_t, bias=False)
        self.head_f = nn.Linear(out_channels, codebook_size_f, bias=False)
        self.final_layer: nn.Sequential | None = None if n_outputs is None else self._classifier(n_outputs)
        # The heads that the mode leaves out have no gradient, and DistributedDataParallel would wait for it.
        self.head_t.requires_grad_(pretrain_mode)
        self.head_f.requires_grad_(pretrain_mode)
        if self.final_layer is not None:
            self.final_layer.requires_grad_(not pretrain_mode)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, return_features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor] | dict[str, Tensor | None]:
        """Classify windows, or return their features.

        Parameters
        ----------
        x : Tensor (B, C, T)
            Microvolts / 100.
        mask : Tensor (B, C, P), optional
            Bool or 0/1; where it is 1 the patch is hidden from the model.
        return_features : bool
            Whether to return features instead of classes.

        Returns
        -------
        Class logits (B, n_outputs). With ``return_features``, ``{"features": (B, C, P, D), "cls_token": None}``. In
        ``pretrain_mode``, the temporal and the frequency logits (B, C, P, K), of hidden patches only (n_hidden, K) if
        there is a mask.

        Raises
        ------
        TypeError
            If ``x`` or ``mask`` is no tensor.
        ValueError
            If ``x`` has not three dimensions, is shorter than a patch, is not what the classifier was built for, or (on
            a CPU; elsewhere the check would stall the device) holds a NaN or an infinity.

        Warns
        -----
        UserWarning
            Once per model: if (on a CPU) the amplitudes of ``x`` are none that EEG has in microvolts / 100, or its
            windows have another number of samples than the classifier was built for.
        """
        features = self.backbone(_checked_patches(x, self.backbone, self._units), mask)
        if return_features:
            return {"features": features, "cls_token": None}
        if self.pretrain_mode:
            return _code_logits(features, mask, self.head_t, self.head_f)
        classifier = self._require_classifier(features)
        self._warn_of_length(x.shape[-1])
        return classifier(features)

    def reset_head(self, n_outputs: int) -> None:
        """Replace the classifier by a new one with ``n_outputs`` outputs; everything else stays.

        Raises
        ------
        ValueError
            If ``n_outputs`` is not positive, channels and samples are unknown, or the model is folded.
        """
        self.refuse_folded("reset_head")
        like = self.backbone.norm.weight
        self.final_layer = self._classifier(n_outputs).to(like.device, like.dtype).train(self.training)
        self.final_layer.requires_grad_(not self.pretrain_mode)
        self._n_outputs = self._arguments["n_outputs"] = n_outputs

    def get_config(self) -> dict[str, Any]:
        """Return the JSON-serialisable constructor arguments, from which :meth:`from_config` builds the same model."""
        config = _without_extensions(self._arguments)
        config["activation"] = _name_of(config["activation"])
        config["pos_kernel"] = list(config["pos_kernel"])
        if config["chs_info"] is not None:
            config["chs_info"] = [_json_channel(channel) for channel in config["chs_info"]]
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a model from what :meth:`get_config` (or braindecode's) returned, without weights."""
        arguments = {name: value for name, value in config.items() if name != "braindecode_version"}
        arguments["activation"] = _type_of(arguments.get("activation", nn.ReLU))
        unknown = sorted(arguments.keys() - cls.__init__.__annotations__.keys())
        if unknown:
            raise ValueError(f"unknown arguments of {cls.__name__}: {', '.join(unknown)}")
        if arguments.get("chs_info") is not None:
            arguments["chs_info"] = [
                {**channel, "loc": np.asarray(channel["loc"])} if "loc" in channel else dict(channel)
                for channel in arguments["chs_info"]
            ]
        return cls(**arguments)

    @property
    def n_outputs(self) -> int:
        """Classes."""
        return _specified("n_outputs", self._n_outputs)

    @property
    def n_chans(self) -> int:
        """Channels that the classifier is built for."""
        return _specified("n_chans", self._n_chans, "n_chans or chs_info")

    @property
    def chs_info(self) -> Sequence[Mapping[str, Any]]:
        """Description of each channel, as in an MNE ``info``."""
        return _specified("chs_info", self._chs_info)

    @property
    def n_times(self) -> int:
        """Samples per channel that the classifier is built for."""
        return _specified("n_times", self._n_times, "n_times, or input_window_seconds and sfreq")

    @property
    def input_window_seconds(self) -> float:
        """Length of a window in seconds."""
        return _specified(
            "input_window_seconds", self._input_window_seconds, "input_window_seconds, or n_times and sfreq"
        )

    @property
    def sfreq(self) -> float:
        """Sampling rate in Hz."""
        return _specified("sfreq", self._sfreq, "sfreq, or n_times and input_window_seconds")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of a batch of one window: (1, C, T)."""
        return 1, self.n_chans, self.n_times

    def get_output_shape(self) -> tuple[int, ...]:
        """Return the shape of the classifier's output for a batch of one window."""
        return 1, self.n_outputs

    def _classifier(self, n_outputs: int) -> nn.Sequential:
        """Build the three-layer MLP on all features of a window, for the channels and samples of this model."""
        if n_outputs < 1:
            raise ValueError(f"n_outputs={n_outputs} must be at least 1")
        n_patches = self.n_times // self.patch_size
        if n_patches == 0:
            raise ValueError(f"n_times={self.n_times} is shorter than one patch of {self.patch_size} samples")
        hidden = self.mlp_hidden_multiplier * self.out_channels
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(self.n_chans * n_patches * self.out_channels, hidden),
            nn.ELU(),
            nn.Dropout(self.drop_prob),
            nn.Linear(hidden, self.out_channels),
            nn.ELU(),
            nn.Dropout(self.drop_prob),
            nn.Linear(self.out_channels, n_outputs),
        )

    def _warn_of_length(self, n_samples: int) -> None:
        """Say once that windows have as many patches as the classifier was built for, but not as many samples."""
        if torch.compiler.is_compiling() or self._warned_of_length or n_samples == self.n_times:
            return
        self._warned_of_length = True
        warnings.warn(
            f"windows of {n_samples} samples for a classifier that was built for {self.n_times}: if their sampling "
            "rate is another one, resample them; what comes after the last whole patch of "
            f"{self.patch_size} samples is not used",
            stacklevel=5,
        )

    def _require_classifier(self, features: Tensor) -> nn.Sequential:
        if self.final_layer is None:
            raise ValueError("this model has no classifier: pass return_features=True, or call reset_head(n_outputs)")
        built_for = (self.n_chans, self.n_times // self.patch_size)
        if features.shape[1:3] != built_for:
            raise ValueError(
                f"the classifier was built for {built_for[0]} channels and {built_for[1]} patches of {self.patch_size} "
                f"samples, got {features.shape[1]} channels and {features.shape[2]} patches: build the model with the "
                "n_chans and n_times of the data, or take the features (return_features=True), which any shape has"
            )
        return self.final_layer


class MaskedTokenModel(HubModel, nn.Module):
    """Backbone with two heads that name the code of every hidden patch: what stage 2 trains.

    Parameters
    ----------
    n_codes_t, n_codes_f : int
        Codes K of the tokenizer's temporal and frequency codebook.
    activation : type of nn.Module
        Non-linearity of the backbone's input and output projections.
    **sizes
        Fields of :class:`codebrain.BackboneConfig`.
    """

    def __init__(self, n_codes_t: int, n_codes_f: int, *, activation: type[nn.Module] = nn.ReLU, **sizes: Any):
        super().__init__()
        if min(n_codes_t, n_codes_f) < 1:
            raise ValueError(f"n_codes_t={n_codes_t} and n_codes_f={n_codes_f} must be at least 1")
        self._activation = activation
        self.backbone = EEGSSM(BackboneConfig(**sizes), activation)
        self.head_t = nn.Linear(self.backbone.config.out_channels, n_codes_t, bias=False)
        self.head_f = nn.Linear(self.backbone.config.out_channels, n_codes_f, bias=False)
        self._units = UnitWatch(SCALE_UV)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, everywhere: bool = False) -> tuple[Tensor, Tensor]:
        """Return the logits of the temporal and the frequency codes.

        Parameters
        ----------
        x : Tensor (B, C, T)
            Microvolts / 100.
        mask : Tensor (B, C, P), optional
            Bool or 0/1, 1 = hidden.
        everywhere : bool
            Whether the codes of visible patches are asked for as well.

        Returns
        -------
        Two tensors (n_hidden, K), one row per hidden patch in the order of ``mask.nonzero()``; without a mask, or
        ``everywhere``, two tensors (B, C, P, K).
        """
        features = self.backbone(_checked_patches(x, self.backbone, self._units), mask)
        return _code_logits(features, None if everywhere else mask, self.head_t, self.head_f)

    def get_config(self) -> dict[str, Any]:
        """Return the sizes under the names of :class:`CodeBrain`, which can load what this model saves."""
        return {
            **_without_extensions(dataclasses.asdict(self.backbone.config)),
            "pos_kernel": list(self.backbone.config.pos_kernel),
            "codebook_size_t": self.head_t.out_features,
            "codebook_size_f": self.head_f.out_features,
            "activation": _name_of(self._activation),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a model from a config of this class or of :class:`CodeBrain`, without weights."""
        unknown = sorted(config.keys() - CodeBrain.__init__.__annotations__.keys() - {"braindecode_version"})
        if unknown:
            raise ValueError(
                f"unknown arguments of {cls.__name__}: {', '.join(unknown)}. The numbers of codes are called "
                "codebook_size_t and codebook_size_f here, as in a config.json"
            )
        missing = [name for name in ("codebook_size_t", "codebook_size_f") if name not in config]
        if missing:
            raise ValueError(f"{' and '.join(missing)} not known: the checkpoint has no code heads, so pass the sizes")
        return cls(
            config["codebook_size_t"],
            config["codebook_size_f"],
            activation=_type_of(config.get("activation", nn.ReLU)),
            **{name: config[name] for name in SIZES if name in config},
        )


def _checked_patches(x: Tensor, backbone: EEGSSM, units: UnitWatch) -> Tensor:
    """Cut (B, C, T) into patches of the backbone's dtype, or say what is wrong with it."""
    patches = patchify(x, backbone.config.patch_size)
    if 0 in patches.shape[:2]:
        raise ValueError(f"an empty batch of shape {tuple(x.shape)}: at least one window of one channel is needed")
    require_finite(patches)
    units.look(patches)
    return patches.to(backbone.norm.weight.dtype)


def _code_logits(features: Tensor, mask: Tensor | None, head_t: nn.Linear, head_f: nn.Linear) -> tuple[Tensor, Tensor]:
    """Apply both heads, to the hidden patches alone if there is a mask: theirs are the widest products of the model."""
    if mask is not None:
        features = features[mask.bool()]
    return head_t(features), head_f(features)


def _channel_count(n_chans: int | None, chs_info: Sequence[Mapping[str, Any]] | None) -> int | None:
    if n_chans is not None and chs_info is not None and len(chs_info) != n_chans:
        raise ValueError(f"n_chans={n_chans} contradicts chs_info, which describes {len(chs_info)} channels")
    count = len(chs_info) if n_chans is None and chs_info is not None else n_chans
    if count is not None and count < 1:
        raise ValueError(f"n_chans={count} must be at least 1")
    return count


def _warn_of_rate(sfreq: float | None, patch_size: int) -> None:
    if sfreq is not None and not is_rate(sfreq, patch_size):
        warnings.warn(
            f"sfreq={sfreq:g}: a patch of {patch_size} samples lasts {patch_size / sfreq:.3g} s. For patches of one "
            f"second, as the released weights have them, resample to {patch_size} Hz or, in a model without "
            f"pre-trained weights, pass patch_size={round(sfreq)}",
            PatchLengthWarning,
            stacklevel=3,
        )


def _specified(name: str, value: Any, remedy: str | None = None) -> Any:
    if value is None:
        raise ValueError(f"{name} not specified: pass {remedy or name}")
    return value


def _json_channel(channel: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of an MNE channel what JSON can hold: names, numbers and the location."""
    kept = {name: channel[name] for name in ("ch_name", "kind", "coil_type", "unit", "cal", "range") if name in channel}
    plain = {name: value if isinstance(value, str | float) else int(value) for name, value in kept.items()}
    if channel.get("loc") is not None:
        plain["loc"] = np.asarray(channel["loc"]).tolist()
    return plain


def _without_extensions(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value or name not in EXTENSIONS}


def _name_of(activation: type[nn.Module]) -> str:
    return f"{activation.__module__}.{activation.__qualname__}"


def _type_of(activation: str | type[nn.Module]) -> type[nn.Module]:
    """Return the class that a config names. Only classes of ``torch.nn``: a config must not import what it likes."""
    if isinstance(activation, type):
        return activation
    if not isinstance(activation, str):
        raise ValueError(f"activation {activation!r} is neither a class of modules nor the name of one of torch.nn")
    found = getattr(nn, activation.rpartition(".")[2], None)
    if not (activation.startswith("torch.nn.") and isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"activation {activation!r} is not in torch.nn: pass the class itself, activation=...")
    return found
