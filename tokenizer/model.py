"""DualTokenizer: windows of EEG to temporal and frequency codes, and back.

Shapes: B windows, C channels, T samples, P patches per channel, L samples per patch, F = L//2 + 1 bins, D width.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from codebrain import weights
from codebrain.patches import UnitWatch, deviations, patchify, require_finite, to_model_units
from codebrain.saving import Saved
from codebrain.units import wrong_unit
from tokenizer.card import model_card
from tokenizer.config import TokenizerConfig
from tokenizer.decoders import Decoder, frequency_outputs, temporal_outputs
from tokenizer.encoder import Encoder
from tokenizer.inputs import Indices, montage_matrix, require_names, require_type, to_codes, to_signal
from tokenizer.outputs import Codes, Reconstruction, TokenizerOutput
from tokenizer.quantizer import Quantizer
from tokenizer.targets import Targets, log_amplitude, make_targets, one_sided

MODEL_TYPE = "codebrain-tokenizer"
ENCODE_TOKENS = 16384  # tokens that `encode` holds at a time


class DualTokenizer(Saved, nn.Module):
    """The two vocabularies: an encoder, two quantisers and two decoders.

    `push_to_hub` is huggingface_hub's.

    Parameters
    ----------
    config : TokenizerConfig
        Sizes and targets.

    Attributes
    ----------
    record : dict
        What the training run measured; saved with the weights and told by the model card.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.record: dict[str, Any] = {}
        self._units = UnitWatch(1.0)
        self._warned_of_length = False
        common: dict[str, Any] = dict(
            width=config.width,
            n_heads=config.n_heads,
            mlp_ratio=config.mlp_ratio,
            max_patches=config.max_patches,
        )
        book: dict[str, Any] = dict(
            dim=config.code_dim,
            decay=config.decay,
            kmeans_init=config.codebook_start == "kmeans",
            rotation_trick=config.rotation_trick,
        )
        decoder: dict[str, Any] = dict(code_dim=config.code_dim, n_layers=config.decoder_layers, **common)
        self.encoder = Encoder(
            patch_size=config.patch_size,
            conv_features=config.conv_features,
            conv_norm=config.conv_norm,
            linear_path=config.linear_path,
            n_layers=config.n_layers,
            **common,
        )
        self.to_code_t = _to_code(config.width, config.code_dim)
        self.to_code_f = _to_code(config.width, config.code_dim)
        self.quantizer_t = Quantizer(n_codes=config.n_codes_t, **book)
        self.quantizer_f = Quantizer(n_codes=config.n_codes_f, **book)
        self.decoder_t = Decoder(outputs=temporal_outputs(config.patch_size), **decoder)
        self.decoder_f = Decoder(outputs=frequency_outputs(config.patch_size, config.phase), **decoder)

    def forward(self, x_uv: Tensor, ch_names: Sequence[str], noise: Tensor | None = None) -> TokenizerOutput:
        """Encode, quantise and restore windows of one montage.

        Parameters
        ----------
        x_uv : Tensor, (B, C, T), microvolts
            T // patch_size patches are used, at most `max_patches`.
        ch_names : sequence of str
            Names of the C channels, electrodes ("Cz") or bipolar derivations ("Fp1-F7").
        noise : Tensor, (B, C, P, 2 * code_dim), optional
            Standard normal; stands in for quantisation before the codebooks have started (`Quantizer`).

        Returns
        -------
        TokenizerOutput

        Raises
        ------
        ValueError
            A channel is unknown, their number does not fit, or the window is too short or too long.

        Warns
        -----
        UserWarning
            Once per model, if (on a CPU) the amplitudes of `x_uv` are none that EEG has in microvolts.
        """
        features, montage = self._encode(x_uv, ch_names)
        self._units.look(patchify(x_uv, self.config.patch_size))
        noise_t, noise_f = (None, None) if noise is None else noise.chunk(2, dim=-1)
        quantized_t, codes_t, commitment_t = self.quantizer_t(self.to_code_t(features), noise_t)
        quantized_f, codes_f, commitment_f = self.quantizer_f(self.to_code_f(features), noise_f)
        return TokenizerOutput(
            codes=None if codes_t is None else Codes(codes_t, codes_f),
            reconstruction=self._reconstruct(quantized_t, quantized_f, montage),
            features=features,
            commitment_t=commitment_t,
            commitment_f=commitment_f,
        )

    @torch.no_grad()
    def encode(
        self, x_uv: Tensor | npt.NDArray[np.floating], ch_names: Sequence[str], *, prepared: bool = False
    ) -> Codes:
        """Tokens of windows (B, C, T) in microvolts, in evaluation mode, a few windows at a time.

        Parameters and errors are those of `forward`; the codes are those that `forward` assigns in evaluation mode and
        in float32, within autocast too: codes of one window are the same wherever they are asked for.

        Parameters
        ----------
        x_uv : Tensor or array, (B, C, T), microvolts
        ch_names : sequence of str
        prepared : bool
            Whether the windows are those of a store or a recording that `data_prep` prepared: their unit is known then,
            and windows in which hardly anything moves are no sign of another.

        Raises
        ------
        TypeError
            `x_uv` is neither a tensor nor an array of floating-point numbers.
        ValueError
            As `forward`; or the codebooks have not started, the batch is empty, its amplitudes are none that EEG has in
            microvolts, or (on a CPU; elsewhere the check would stall the device) it holds a NaN or an infinity.
        FloatingPointError
            The features of the windows are NaN or infinite, so that they have no codes.

        Warns
        -----
        UserWarning
            Once per model, if the windows do not end with a patch: they may be of another sampling rate.
        """
        self._require_started()
        x_uv = to_signal(x_uv, self.quantizer_t.book.embed.device)
        self._require_windows(x_uv, ch_names)
        patches = patchify(x_uv, self.config.patch_size)
        require_finite(patches, ch_names)
        if not prepared:
            self._warn_of_length(x_uv.shape[-1])
            if fault := wrong_unit(deviations(patches)):
                raise ValueError(fault)
        n_tokens = patches.shape[1:3].numel()
        finite = torch.ones((), dtype=torch.bool, device=x_uv.device)
        parts_t, parts_f = [], []
        with evaluating(self), torch.autocast(device_type=x_uv.device.type, enabled=False):
            for chunk in x_uv.split(max(1, ENCODE_TOKENS // n_tokens)):
                features, _ = self._encode(chunk, ch_names)
                finite &= torch.isfinite(features).all()
                parts_t.append(self.quantizer_t(self.to_code_t(features))[1])
                parts_f.append(self.quantizer_f(self.to_code_f(features))[1])
        if not finite:
            raise FloatingPointError(
                f"features of windows of shape {tuple(x_uv.shape)} are NaN or infinite, so they have no codes: their "
                f"samples reach {x_uv.abs().max():.3g} microvolts. Reject such windows, or repair them"
            )
        return Codes(torch.cat(parts_t), torch.cat(parts_f))

    @torch.no_grad()
    def decode(self, codes: Codes | tuple[Indices, Indices], ch_names: Sequence[str]) -> Reconstruction:
        """What tokens stand for, in the scale of the model's targets, in evaluation mode.

        Parameters
        ----------
        codes : Codes, or a pair of tensors or arrays, (B, C, P)
            Temporal, then frequency codes, of any integer type.
        ch_names : sequence of str
            Names of the C channels.

        Raises
        ------
        TypeError
            The codes are no integers.
        ValueError
            They do not fit the channels, each other or the codebooks, a channel is unknown, or the codebooks have not
            started.
        """
        self._require_started()
        require_names(ch_names)
        montage = montage_matrix(ch_names)
        device = self.quantizer_t.book.embed.device
        t, f = (
            to_codes(indices, name, n_codes=n_codes, n_channels=len(ch_names), max_patches=self.config.max_patches)
            for indices, name, n_codes in (
                (codes[0], "temporal", self.config.n_codes_t),
                (codes[1], "frequency", self.config.n_codes_f),
            )
        )
        if t.shape != f.shape:
            raise ValueError(f"temporal codes of shape {tuple(t.shape)}, frequency codes of shape {tuple(f.shape)}")
        with evaluating(self):
            quantized = self.quantizer_t.lookup(t.to(device)), self.quantizer_f.lookup(f.to(device))
            return self._reconstruct(*quantized, montage.to(device))

    def targets(self, x_uv: Tensor) -> Targets:
        """What `forward` should restore from windows (B, C, T) in microvolts; warns of other units as that does."""
        config = self.config
        return make_targets(self._patches(x_uv), waveform=config.waveform, amplitude=config.amplitude)

    @torch.no_grad()
    def centre(self, batches: Iterable[Tensor]) -> None:
        """Let amplitudes be read, and predicted at the start, around the mean spectrum of windows.

        Most of an amplitude's variance is the fall of EEG's spectrum with frequency, which is the same everywhere:
        an encoder that reads it along, and a decoder that starts at zero, spend hundreds of steps on that.

        Parameters
        ----------
        batches : iterable of Tensor, (B, C, T), microvolts
            Each of one montage. All windows weigh the same, however they are batched.
        """
        n_windows, sums = 0, torch.zeros(2, self.config.patch_size // 2 + 1, dtype=torch.float64)
        for x_uv in batches:
            patches = self._patches(x_uv)
            views = log_amplitude(one_sided(patches).abs()), self.targets(x_uv).amplitude
            sums += len(x_uv) * torch.stack([view.double().mean((0, 1, 2)) for view in views]).cpu()
            n_windows += len(x_uv)
        read, restored = sums / n_windows
        self.encoder.embed.mean_log_amplitude.copy_(read)
        self.decoder_f.start_at("amplitude", restored)

    @torch.no_grad()
    def init_codebooks(
        self,
        windows: Iterable[tuple[Tensor, Sequence[str]]],
        generator: torch.Generator,
        *,
        vectors_per_step: float,
        n_iters: int = 10,
    ) -> None:
        """Start both codebooks by k-means over the patches of all processes. Collective.

        Parameters
        ----------
        windows : iterable of (x_uv, ch_names)
            This process's share, in batches of one montage each. The patches of all processes together, by rank, are
            the points.
        generator : torch.Generator
            On the CPU and in the same state on every process.
        vectors_per_step : float
            Tokens of one optimizer step over all processes: the weight of this start in the moving averages.
        n_iters : int
            k-means iterations.
        """
        points: tuple[list[Tensor], list[Tensor]] = [], []
        with evaluating(self):
            for x_uv, ch_names in windows:
                features, _ = self._encode(x_uv, ch_names)
                for found, to_code in zip(points, (self.to_code_t, self.to_code_f), strict=True):
                    found.append(nn.functional.normalize(to_code(features).float().flatten(0, 2), dim=-1))
        for quantizer, vectors in zip((self.quantizer_t, self.quantizer_f), points, strict=True):
            everything = torch.cat(vectors)
            quantizer.book.initialise(everything, generator, n_iters=n_iters, vectors_per_step=vectors_per_step)

    def update_codebooks(self, generator: torch.Generator) -> dict[str, float]:
        """Move both codebooks by the windows of the optimizer step just taken, and re-seed dead codes. Collective.

        Parameters
        ----------
        generator : torch.Generator
            On the CPU and in the same state on every process.

        Returns
        -------
        dict
            `revived_t` and `revived_f`: codes re-seeded in this step.
        """
        if not self.started:
            return {f"revived_{name}": 0.0 for name in self.quantizers()}
        return {
            f"revived_{name}": float(quantizer.book.update(generator, self.config.revive_below))
            for name, quantizer in self.quantizers().items()
        }

    @property
    def started(self) -> bool:
        """Whether the codebooks are in place, so that `forward` quantises."""
        return self.quantizer_t.started

    def quantizers(self) -> dict[str, Quantizer]:
        """The temporal ("t") and the frequency ("f") quantiser."""
        return {"t": self.quantizer_t, "f": self.quantizer_f}

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **hub: Any) -> Self:  # type: ignore[override]
        """Load a tokenizer, in evaluation mode.

        Parameters
        ----------
        source : path or str
            A run folder, an export folder or a Hub id.
        **hub
            `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as in huggingface_hub.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no such model, it is another kind of model, or a file is damaged. The released
            CodeBrain_Tokenizer.pth cannot be loaded: the shapes of its TFConv were not published.
        """
        files = weights.resolve(source, **hub)
        if files.config is None:
            raise ValueError(
                f"{source} has no config.json, so it is no tokenizer of this project; pass a stage-1 run folder, its "
                "export/ or a Hub id. (The released CodeBrain_Tokenizer.pth cannot be loaded: the shapes of its TFConv "
                "were not published.)"
            )
        saved = weights.read_config(files.config, MODEL_TYPE)
        names = {field.name for field in fields(TokenizerConfig)}
        try:
            config = TokenizerConfig(**{name: value for name, value in saved.items() if name in names})
            require_type("record", saved.get("record", {}), dict)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{files.config} is damaged: {error}") from error
        model = cls(config)
        state_dict = weights.read_state_dict(files.weights)
        weights.require_fit(model, state_dict, files.weights)
        model.load_state_dict(state_dict)
        model.record = saved.get("record", {})
        return model.eval()

    def saved_config(self) -> dict[str, Any]:
        """Contents of config.json."""
        return {"model_type": MODEL_TYPE, **asdict(self.config), "record": self.record}

    def saved_card(self) -> str:
        """The model card."""
        return model_card(self.config, sum(parameter.numel() for parameter in self.parameters()), self.record)

    def _require_started(self) -> None:
        if not self.started:
            raise ValueError("this tokenizer's codebooks have not started yet; train it past its k-means start")

    def _require_windows(self, x_uv: Tensor, ch_names: Sequence[str]) -> None:
        require_names(ch_names)
        if x_uv.ndim != 3 or x_uv.shape[1] != len(ch_names):
            raise ValueError(
                f"x_uv has shape {tuple(x_uv.shape)} for {len(ch_names)} channel names; "
                "expected (windows, channels, samples) with a name for each channel"
            )
        self.config.check(ch_names, x_uv.shape[-1])

    def _patches(self, x_uv: Tensor) -> Tensor:
        """Patches (B, C, P, L) in model units of windows (B, C, T) in microvolts, whose unit is watched."""
        patches = patchify(x_uv.float(), self.config.patch_size)
        self._units.look(patches)
        return to_model_units(patches)

    def _warn_of_length(self, n_samples: int) -> None:
        rest = n_samples % self.config.patch_size
        if rest and not self._warned_of_length:
            self._warned_of_length = True
            warnings.warn(
                f"the last {rest} samples of windows of {n_samples} have no code, since a patch has "
                f"{self.config.patch_size}. If the windows are not sampled at {self.config.sfreq:g} Hz, resample them",
                stacklevel=4,
            )

    def _encode(self, x_uv: Tensor, ch_names: Sequence[str]) -> tuple[Tensor, Tensor]:
        self._require_windows(x_uv, ch_names)
        montage = montage_matrix(ch_names).to(x_uv.device)
        return self.encoder(patchify(to_model_units(x_uv.float()), self.config.patch_size), montage), montage

    def _reconstruct(self, quantized_t: Tensor, quantized_f: Tensor, montage: Tensor) -> Reconstruction:
        return Reconstruction(**self.decoder_t(quantized_t, montage), **self.decoder_f(quantized_f, montage))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and back afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _to_code(width: int, code_dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, code_dim))
