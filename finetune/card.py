"""Model card of a fine-tuned model: the README.md in its export folder."""

from __future__ import annotations

import json
from typing import Any

from finetune.classifier import Contract
from finetune.config import FinetuneConfig


def model_card(config: FinetuneConfig, contract: Contract, facts: dict[str, Any]) -> str:
    """Markdown with the front matter that the Hub reads."""
    task = contract.task
    what = " or ".join(f"`{name}`" for name in task.class_names) or "a number"
    selection = next(name for name in facts if name.startswith("valid_"))
    return f"""---
library_name: codebrain-eeg
license: bsd-3-clause
tags: [eeg, codebrain, {json.dumps(task.name)}]
---
# CodeBrain, fine-tuned for {task.name}

Tells {what} from a window of EEG: {len(contract.ch_names)} channels x {contract.n_times} samples at
{contract.sfreq:g} Hz, microvolts.

- Channels: {", ".join(contract.ch_names)}
- Preparation: `{json.dumps(contract.preparation, sort_keys=True)}`
- Task: {task.title}; mode `{config.mode}`, head `{config.head}`
- Selected on validation at step {facts["best_step"]} by {selection.removeprefix("valid_")} {facts[selection]:.3f}
  (the selection makes this value too high; the run's report.md has the metrics to quote)

```python
from finetune.classifier import load

model, contract = load("PATH_OR_HUB_ID")
probabilities = contract.task.scores(model(x_uv))      # x_uv: (windows, channels, samples) in microvolts
```
"""
