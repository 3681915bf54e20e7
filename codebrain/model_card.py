"""The README.md that lies beside saved weights."""

import json
from collections.abc import Mapping
from typing import Any

from codebrain import __doc__ as about

FIGURES = {
    f"{name}_{book}": f"{vocabulary} codes, {title}"
    for book, vocabulary in (("t", "temporal"), ("f", "frequency"))
    for name, title in (
        ("bits", "bits"),
        ("entropy", "bits of their entropy"),
        ("top1", "first guess right"),
        ("majority", "share of the most frequent"),
    )
}
"""Figures of stage 2 on hidden patches that are worth a line, and what they are called."""

_SHARES = ("codes_in_use", "top1", "majority")
"""Beginnings of the names of figures that are shown in per cent."""

PREPARATION = ("unit", "channels", "clean", "windows")
"""Constants of a store's preparation that the signal depends on; config.json has them all."""


def model_card(model: Any) -> str:
    """Return the model card of a :class:`codebrain.CodeBrain` or :class:`codebrain.MaskedTokenModel`."""
    config = model.get_config()
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    name = type(model).__name__
    sizes = "\n".join(
        f"| `{key}` | {value} |" for key, value in config.items() if key != "chs_info" and value is not None
    )
    return f"""---
library_name: codebrain-eeg
license: bsd-3-clause
pipeline_tag: feature-extraction
tags: [{", ".join(dict.fromkeys(("eeg", "foundation-model", "codebrain", name.lower())))}]
---
# {name}

{(about or "").splitlines()[0]}

{n_parameters:,} parameters. Input: (windows, channels, samples) in microvolts / 100, at the sampling rate of the
training data. Features: {config["out_channels"]} numbers per channel and patch of {config["patch_size"]} samples.

```python
from codebrain import CodeBrain

model = CodeBrain.from_pretrained("PATH_OR_HUB_ID")                       # features
features = model(x_uv / 100, return_features=True)["features"]            # (windows, channels, patches, width)
model = CodeBrain.from_pretrained("PATH_OR_HUB_ID", n_outputs=2, n_chans=19, n_times=6000)   # a new classifier
```

{_in_braindecode(model)}

{trained(model.record, FIGURES)}
{prepared(model.record, "Features depend")}
| argument | value |
|---|---|
{sizes}

Paper: Ma et al., CodeBrain: Bridging Decoupled Tokenizer and Multi-Scale Architecture for EEG Foundation Model,
arXiv 2506.09110.
Research software: not a medical device.
"""


def _in_braindecode(model: Any) -> str:
    """Whether and how braindecode's class loads the model."""
    if not model.backbone.is_braindecodes:
        return (
            "`braindecode.models.CodeBrain` cannot load it: it has neither attention within channels nor activations "
            "with weights."
        )
    if model.get_config().get("n_outputs") is None:
        return (
            "`braindecode.models.CodeBrain.from_pretrained` loads it too, given `n_outputs`, `n_chans` and `n_times`: "
            "the same features, and a new classifier."
        )
    return "`braindecode.models.CodeBrain.from_pretrained` loads it too, with the classifier."


def trained(record: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """How long a model was trained, on what, and its figures on held-out subjects; "" where it does not say.

    Parameters
    ----------
    record : mapping
        `steps`, `windows`, `subjects`, `held_out_subjects` and `held_out` (figure by name); may be empty.
    titles : mapping
        Which figures to show, and what they are called.
    """
    if "held_out" not in record:
        return ""
    rows = "\n".join(
        f"| {title} | {record['held_out'][name]:{'.1%' if name.startswith(_SHARES) else '.4g'}} |"
        for name, title in titles.items()
        if name in record["held_out"]
    )
    return f"""Trained for {record["steps"]} steps on {record["windows"]} windows of {record["subjects"]} subjects. On
windows of {record["held_out_subjects"]} subjects that it did not see:

| figure | value |
|---|---|
{rows}
"""


def prepared(record: Mapping[str, Any], what_depends: str) -> str:
    """How the stores that a model was trained on were prepared; "" where it does not say.

    Parameters
    ----------
    record : mapping
        With the key `stores`, as `tokenizer.corpus.preparations` gives them; may be empty.
    what_depends : str
        Beginning of the sentence that says why it matters: "Codes depend".
    """
    lines = []
    for store in record.get("stores", ()):
        shown = {name: value for name, value in store["preparation"].items() if name in PREPARATION}
        lines.append(f"- {store['windows']} windows of {store['window_seconds']:g} s, `{json.dumps(shown)}`")
    if not lines:
        return ""
    why = f"{what_depends} on filters and on the length of the window. The stores it was trained on:"
    return "\n".join([why, "", *lines, ""])
