"""Where a model computes."""

import torch


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one, and the CPU elsewhere.

    Raises
    ------
    ValueError
        There is no such device, here or at all.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name} cannot be used ({reason}); here are {', '.join(here)}, and `auto` chooses"
        ) from error
    return device
