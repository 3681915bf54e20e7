"""Saving any model of this project to a folder or the Hub, in one piece."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import Tensor

from codebrain.data.format import PARTIAL_SUFFIX, publish
from codebrain.weights import OWN_WEIGHTS, SHARED_WEIGHTS

REPLACED = (SHARED_WEIGHTS, OWN_WEIGHTS, "pytorch_model.bin")
"""Weights on the Hub that an upload replaces: braindecode looks for the first and the last name, we for all three."""


class Saved(PyTorchModelHubMixin):
    """``save_pretrained`` and ``push_to_hub``: config.json, weights and README.md in one piece."""

    def saved_config(self) -> dict[str, Any]:
        """Return the contents of config.json, ``model_type`` included."""
        raise NotImplementedError

    def saved_card(self) -> str:
        """Return the model card."""
        raise NotImplementedError

    def saved_weights(self) -> tuple[str, Mapping[str, Tensor]]:
        """Return the name of the file of weights and what it holds."""
        return OWN_WEIGHTS, self.state_dict()  # type: ignore[attr-defined]

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
        """Write config.json, the weights and README.md, and upload them if ``push_to_hub``.

        The mixin's own removes config.json before it writes; here a save that is interrupted leaves the model that lay
        there before, or none. ``config`` and ``model_card_kwargs``, which the mixin passes, are the model's own.
        """
        folder = Path(save_directory)
        config = self.saved_config()
        write_model(folder, *self.saved_weights(), config, self.saved_card())
        return self.push_to_hub(repo_id or folder.name, **hub) if push_to_hub else None

    def push_to_hub(self, repo_id: str, *, delete_patterns: Sequence[str] | str | None = None, **hub: Any) -> str:
        """Upload the three files in one commit, which removes weights that were uploaded before under other names.

        Parameters
        ----------
        repo_id : str
            Repository on the Hub, ``user/model``.
        delete_patterns : sequence of str or str, optional
            Other files of the repository to delete.
        **hub
            As in ``huggingface_hub``: ``commit_message``, ``private``, ``token``, ``branch``, ``create_pr`` ...
        """
        others = [delete_patterns] if isinstance(delete_patterns, str) else list(delete_patterns or ())
        return super().push_to_hub(repo_id, delete_patterns=[*REPLACED, *others], **hub)


def write_model(
    folder: Path, weights: str, state_dict: Mapping[str, Tensor], config: Mapping[str, Any], card: str
) -> None:
    """Write the three files of a model so that an interrupted save never leaves a folder that looks like one.

    All files are whole before the first takes its place, and the weights, without which a folder holds no model, come
    last: new ones never stand beside the config of old ones. Each is on the disk before it has its name. Weights of the
    other name, ``SHARED_WEIGHTS`` or ``OWN_WEIGHTS``, that an earlier save left are removed.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    writers: dict[str, Callable[[Path], Any]] = {
        "README.md": lambda path: path.write_text(card, encoding="utf-8"),
        "config.json": lambda path: path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8"),
        weights: lambda path: save_file(tensors, path, metadata={"format": "pt"}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / (name + PARTIAL_SUFFIX) for name in writers}
    try:
        for name, write in writers.items():
            write(partial[name])
        for name in (SHARED_WEIGHTS, OWN_WEIGHTS):
            (folder / name).unlink(missing_ok=True)
        for name, path in partial.items():
            publish(path, folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
