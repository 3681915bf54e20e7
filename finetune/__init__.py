"""Fine-tuning: a classifier on the backbone, with splits, seeds, baselines and a report that can be redone."""
