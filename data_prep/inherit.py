"""Preparing a new recording as the windows were that a model was trained on, and saying where it is not.

What a model says of its training names the stores and every constant of their preparation. From that follow flags, the
same for every command that reads recordings for a pre-trained model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_prep.recipe import recipe_of


def training_flags(record: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that prepare a recording as most windows of a model's training were; none if it does not say how.

    Parameters
    ----------
    record : mapping
        What a model says of its training, with the key `stores` if it knows them.

    Raises
    ------
    ValueError
        They were prepared by another version, in a way that this one cannot repeat.
    """
    store: Mapping[str, Any] = next(iter(record.get("stores", [])), {})
    if not store.get("preparation"):
        return {}
    recipe = recipe_of(store["preparation"])
    filters = {f"clean.{name}": value for name, value in dataclasses.asdict(recipe.clean).items() if name != "sfreq"}
    return {
        "unit": recipe.unit,
        "window_seconds": store["window_seconds"],
        "channels.reference": recipe.channels.reference,
        **filters,
    }


def departures(config: Any, trained: Mapping[str, Any], model: str, outputs: str) -> list[str]:
    """What a user must know of a preparation that is not, or may not be, that of a model's training.

    Parameters
    ----------
    config : dataclass
        Of the command, with the fields `unit`, `window_seconds`, `channels` and `clean`.
    trained : mapping
        From `training_flags`.
    model : str
        What the user calls the model.
    outputs : str
        What the model gives: codes, features.
    """
    if not trained:
        return [
            f"WARNING: {model} does not say how its training windows were prepared. Filters and window length are this "
            f"command's own; give those of the training (--clean, --window_seconds), or the {outputs} mean little."
        ]
    given = {**dataclasses.asdict(config), **_flat("clean", config.clean), **_flat("channels", config.channels)}
    return [
        f"WARNING: --{name} {given[name]}, but {model} was trained with {value}: its {outputs} will differ."
        for name, value in trained.items()
        if given[name] != value
    ]


def _flat(name: str, part: Any) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in dataclasses.asdict(part).items()}
