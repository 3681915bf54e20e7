"""Constructor arguments in place of those that a checkpoint was saved with: what may change, and what makes noise."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from codebrain.backbone import BackboneConfig
from codebrain.channels import canonical_name
from codebrain.patches import complete_window, is_rate

SAME_SIZE = {
    **{"n_chans": "chs_info", "chs_info": "n_chans"},
    **{"n_times": "input_window_seconds", "input_window_seconds": "n_times"},
}
"""Arguments that give the same size: a new value of one replaces a saved value of the other."""

CLASSIFIER_ARGUMENTS = (
    *("n_outputs", "n_chans", "chs_info", "n_times", "input_window_seconds"),
    *("mlp_hidden_multiplier", "pretrain_mode"),
)
"""Arguments that mean nothing to a model without a classifier."""

SHAPELESS = ("swa_window_size", "swa_within_channel", "conv_groups", "proj_padding", "activation")
"""Arguments that change what weights compute and the shape of no tensor."""


def trained_rate(config: Mapping[str, Any], record: Mapping[str, Any]) -> float:
    """Sampling rate in Hz at which weights were trained: as their config.json says, otherwise a patch is one second.

    Parameters
    ----------
    config : mapping
        Constructor arguments.
    record : mapping
        What is known of their training, as :func:`codebrain.hub.training_record` reads it.
    """
    rate = _rate(config)
    if rate is None:
        store: Mapping[str, Any] = next(iter(record.get("stores", ())), {})
        rate = (store.get("preparation") or {}).get("clean", {}).get("sfreq")
    return float(config.get("patch_size", BackboneConfig.patch_size) if rate is None else rate)


def _rate(arguments: Mapping[str, Any]) -> float | None:
    return complete_window(*(arguments.get(name) for name in ("n_times", "input_window_seconds", "sfreq")))[2]


def require_rate(source: str, trained: float, overrides: Mapping[str, Any]) -> None:
    """Raise ValueError if arguments give data another sampling rate than weights were trained at."""
    rate = _rate(overrides)
    if rate is not None and not is_rate(rate, trained):
        raise ValueError(
            f"a sampling rate of {rate:g} Hz for {source}, whose weights were trained at {trained:g} Hz: their patches "
            f"would be too long or too short. Resample the data to {trained:g} Hz"
        )


def require_same(source: str, saved: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Raise ValueError if an argument makes weights compute something else, where no shape would show it."""
    was, now = (_shapeless(config) for config in (saved, {**saved, **overrides}))
    for name in SHAPELESS:
        if now[name] != was[name]:
            raise ValueError(
                f"{name}={now[name]}, but the weights of {source} were trained with {was[name]}, and would give other "
                f"features: leave {name} out. To try it, build the model with it and call load_state_dict"
            )


def _shapeless(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments of ``SHAPELESS`` come to, by name."""
    found = {name: config.get(name, getattr(BackboneConfig, name)) for name in SHAPELESS[:-1]}
    found["swa_within_channel"] = found["swa_within_channel"] and found["swa_window_size"] > 1
    activation = config.get("activation", nn.ReLU)
    found["activation"] = getattr(activation, "__name__", str(activation).rpartition(".")[2])
    return found


def replaced(saved: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Saved arguments with others in their place."""
    given = {name for name, value in overrides.items() if value is not None}
    outdated = {SAME_SIZE[name] for name in given if name in SAME_SIZE}
    if given >= {"n_times", "input_window_seconds"}:
        outdated.add("sfreq")  # these give it, up to a sample at the end
    return {**{name: value for name, value in saved.items() if name not in outdated}, **overrides}


def same_places(saved: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether a saved classifier finds the features where it was trained on them: its channels in order, its patches.

    Other ones may have as many features in all. What either does not know is taken to be the same.
    """
    pairs = zip(_places(saved), _places(arguments), strict=True)
    return all(None in (was, now) or was == now for was, now in pairs)


def _places(arguments: Mapping[str, Any]) -> tuple[int | None, int | None, list[str] | None]:
    """Number of channels, patches and names of channels that a classifier is built for."""
    channels = arguments.get("chs_info")
    names = [channel.get("ch_name", "") for channel in channels] if channels else None
    n_times = complete_window(*(arguments.get(name) for name in ("n_times", "input_window_seconds", "sfreq")))[0]
    return (
        arguments.get("n_chans") if names is None else len(names),
        None if n_times is None else n_times // arguments.get("patch_size", BackboneConfig.patch_size),
        None if names is None else [canonical_name(name) or name for name in names],
    )
