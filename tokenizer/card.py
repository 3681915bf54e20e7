"""The README.md that lies beside a saved tokenizer: what it is, how to use it, and what its run measured."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from codebrain.model_card import prepared, trained

FIGURES = {
    "codes_in_use_t": "temporal codes in use",
    "perplexity_t": "temporal perplexity, codes",
    "codes_in_use_f": "frequency codes in use",
    "perplexity_f": "frequency perplexity, codes",
    "waveform_ev": "explained variance, waveform",
    "amplitude_ev": "explained variance, amplitude",
    "phase_cosine": "cosine of the phase error, weighted by amplitude",
}
"""Validation figures worth a line, and what they are called."""


def model_card(config: Any, n_parameters: int, record: Mapping[str, Any]) -> str:
    """The text of a model card.

    Parameters
    ----------
    config : TokenizerConfig
    n_parameters : int
    record : mapping
        What the training run wrote down: `steps`, `windows`, `subjects`, `held_out` (figure by name), `stores` (as
        `tokenizer.corpus.preparations` gives them); may be empty.
    """
    sizes = "\n".join(f"| `{name}` | {value} |" for name, value in dataclasses.asdict(config).items())
    return f"""---
library_name: codebrain-eeg
license: bsd-3-clause
tags: [eeg, tokenizer, vector-quantization, codebrain]
---
# EEG tokenizer with two vocabularies

Turns each {config.patch_size / config.sfreq:g}-second patch of each EEG channel into a temporal code (of
{config.n_codes_t}) and a frequency code (of {config.n_codes_f}), after the TFDual tokenizer of CodeBrain (arXiv
2506.09110). {n_parameters:,} parameters. Any montage of scalp electrodes by name, up to {config.max_patches} patches a
window. Input in microvolts at {config.sfreq:g} Hz.

```python
from tokenizer import DualTokenizer

tokenizer = DualTokenizer.from_pretrained("PATH_OR_HUB_ID")
codes_t, codes_f = tokenizer.encode(x_uv, ch_names)  # x_uv (windows, channels, samples), ch_names such as ["Fp1", "Cz"]
restored = tokenizer.decode((codes_t, codes_f), ch_names)  # codes: (windows, channels, patches)
```

{trained(record, FIGURES)}
{prepared(record, "Codes depend")}
| argument | value |
|---|---|
{sizes}

Trained without labels; codes have no clinical meaning by themselves. Research software: not a medical device.
"""
