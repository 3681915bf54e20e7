"""The README.md that lies beside saved weights."""

from typing import Any

from codebrain import __doc__ as about


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

| argument | value |
|---|---|
{sizes}

Paper: Ma et al., CodeBrain: Bridging Decoupled Tokenizer and Multi-Scale Architecture for EEG Foundation Model,
arXiv 2506.09110.
Research software: not a medical device.
"""
