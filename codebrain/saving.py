"""Saving any model of this project to a folder or the Hub, in one piece."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import Tensor

from codebrain.data.format import PARTIAL_SUFFIX, publish


class Saved(PyTorchModelHubMixin):
    """``save_pretrained`` and ``push_to_hub``: config.json, model.safetensors and README.md in one piece."""

    def saved_config(self) -> dict[str, Any]:
        """Return the contents of config.json, ``model_type`` included."""
        raise NotImplementedError

    def saved_card(self) -> str:
        """Return the model card."""
        raise NotImplementedError

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        config: Any = None,
        model_card_kwargs: Any = None,
        **hub: Any,
    ) -> str | None:
        """Write config.json, model.safetensors and README.md, and upload them if ``push_to_hub``.

        The mixin's own removes config.json before it writes; here a save that is interrupted leaves the model that lay
        there before, or none. ``config`` and ``model_card_kwargs``, which the mixin passes, are the model's own.
        """
        folder = Path(save_directory)
        write_model(folder, self.state_dict(), self.saved_config(), self.saved_card())  # type: ignore[attr-defined]
        return self.push_to_hub(repo_id or folder.name, **hub) if push_to_hub else None


def write_model(folder: Path, state_dict: Mapping[str, Tensor], config: Mapping[str, Any], card: str) -> None:
    """Write the three files of a model so that an interrupted save never leaves a folder that looks like one.

    All files are whole before the first takes its place, and the weights, without which a folder holds no model, come
    last: new ones never stand beside the config of old ones. Each is on the disk before it has its name.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    writers: dict[str, Callable[[Path], Any]] = {
        "README.md": lambda path: path.write_text(card, encoding="utf-8"),
        "config.json": lambda path: path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8"),
        "model.safetensors": lambda path: save_file(tensors, path, metadata={"format": "pt"}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / (name + PARTIAL_SUFFIX) for name in writers}
    try:
        for name, write in writers.items():
            write(partial[name])
        (folder / "model.safetensors").unlink(missing_ok=True)
        for name, path in partial.items():
            publish(path, folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
