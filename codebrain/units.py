"""What amplitude EEG can have: the one place that decides it, for recordings, windows and models. Needs no torch."""

import numpy as np
import numpy.typing as npt

EEG_UV = (0.2, 1000.0)
"""Smallest and largest standard deviation of EEG within a second, in microvolts, of channels or windows taken together:
amplifier noise alone is above the one, the line noise of an unconnected electrode below the other."""

_QUIET_SHARE = 0.9
"""Signals are too small if more than this share of what moves is: electrodes may be off for most of a recording."""


def wrong_unit(deviation: npt.NDArray[np.floating], *, unit_uv: float = 1.0) -> str:
    """Say what is wrong with amplitudes that EEG cannot have in the unit that a model takes.

    A signal that does not move has no amplitude, and neither has one that moves by less than EEG in volts: in neither
    can a unit be wrong.

    Parameters
    ----------
    deviation : (n,) array
        Standard deviations of pieces of about a second, each of one channel.
    unit_uv : float
        Microvolts that are 1.0 in the unit that the model takes.

    Returns
    -------
    str
        "" if nothing is wrong; otherwise the amplitude, what EEG has, and the remedy.
    """
    low, high = EEG_UV
    moving = unit_uv * deviation
    moving = moving[moving > 1e-6 * low]
    if not moving.size:
        return ""
    quiet = (moving < low).mean() > _QUIET_SHARE
    if not quiet and (moving > high).mean() <= 0.5:
        return ""
    takes = "microvolts" if unit_uv == 1 else f"microvolts / {unit_uv:g}"
    middle = float(np.median(moving))
    found = f"{middle / unit_uv:.3g}" + ("" if unit_uv == 1 else f", that is {middle:.3g} microvolts")
    if quiet:
        remedy = "Multiply volts, as MNE gives them, by 1e6 and millivolts by 1e3"
        remedy += "" if unit_uv == 1 else f", then divide by {unit_uv:g}"
    elif unit_uv == 1:
        remedy = "Multiply nanovolts by 1e-3, and the counts of a recorder by its microvolts per count"
    else:
        remedy = f"Divide microvolts by {unit_uv:g} (codebrain.patches.to_model_units)"
    return (
        f"wrong unit? The model takes {takes}. The standard deviation of this signal within a second is {found} "
        f"(median), and EEG has {low:g} to {high:g} microvolts. {remedy}"
    )
