"""What a tokenizer's codes explain on held-out subjects, beside scikit-learn's k-means with as many codes.

    python benchmarks/kmeans_baseline.py --tokenizer RUN1 --data STORE --held_out Subject28 Subject29

k-means is fitted to the training subjects' patches, once to the waveforms z-scored per patch and once to the
log-amplitudes z-scored per window, the scale on which every tokenizer is measured (`tokenizer.quality`); a held-out
patch is then its nearest centre. The tokenizer restores a patch from its code and the codes around it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

from codebrain.config import command
from codebrain.data.subjects import SplitConfig, split_subjects
from codebrain.data.windows import WindowDataset
from codebrain.patches import patchify, to_model_units
from codebrain.training.sampling import eval_batches
from tokenizer import DualTokenizer
from tokenizer.quality import QualityTally
from tokenizer.targets import make_targets
from tokenizer.usage import usage

Floats = npt.NDArray[np.float32]
EXACT_UP_TO = 1024  # codes; more are fitted by mini-batches


def main() -> int:
    options = parse()
    tokenizer = DualTokenizer.from_pretrained(options.tokenizer)
    train, valid = split_subjects(WindowDataset(options.data), SplitConfig(valid_subjects=options.held_out))
    report = {"held_out_windows": len(valid), "tokenizer": measure(tokenizer, valid)}
    patch_size = tokenizer.config.patch_size
    known, unseen = targets(train, patch_size, options.patches), targets(valid, patch_size)
    for name, n_codes in (("waveform", tokenizer.config.n_codes_t), ("amplitude", tokenizer.config.n_codes_f)):
        report[f"kmeans_{name}_ev"] = kmeans_explained(known[name], unseen[name], n_codes, options.seed)
    print(table(report))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="stage-1 run, export folder or Hub id")
    parser.add_argument("--data", nargs="+", required=True, help="the stores that it was trained on")
    parser.add_argument("--held_out", nargs="+", required=True, help="subjects that it was not trained on")
    parser.add_argument("--patches", type=int, default=150_000, help="training patches that k-means sees, at most")
    parser.add_argument("--seed", type=int, default=0, help="of k-means")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def measure(tokenizer: DualTokenizer, dataset: WindowDataset, batch_size: int = 16) -> dict[str, float]:
    """Usage of both codebooks and quality of restoration over all windows."""
    tally = QualityTally(tokenizer.config)
    hits = {"t": torch.zeros(tokenizer.config.n_codes_t), "f": torch.zeros(tokenizer.config.n_codes_f)}
    for batch in eval_batches(dataset, batch_size):
        codes = tokenizer.encode(batch.x, batch.ch_names, prepared=True)
        tally.add(tokenizer.decode(codes, batch.ch_names), tokenizer.targets(batch.x), batch.x)
        for name, found in (("t", codes.t), ("f", codes.f)):
            hits[name] += torch.bincount(found.flatten(), minlength=len(hits[name]))
    used = {f"{figure}_{book}": value for book, counts in hits.items() for figure, value in usage(counts).items()}
    return {**used, **{name: float(value) for name, value in tally.figures().items()}}


def targets(dataset: WindowDataset, patch_size: int, limit: int | None = None) -> dict[str, Floats]:
    """Waveforms (n, L) and amplitudes (n, F) of all patches, or of `limit` evenly spaced ones."""
    found: dict[str, list[Floats]] = {"waveform": [], "amplitude": []}
    for batch in eval_batches(dataset, 16):
        each = make_targets(patchify(to_model_units(batch.x), patch_size), waveform="patch", amplitude="log")
        found["waveform"].append(each.waveform.flatten(0, 2).numpy())
        found["amplitude"].append(each.amplitude.flatten(0, 2).numpy())
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    n = len(whole["waveform"])
    return whole if limit is None or n <= limit else {k: v[:: -(-n // limit)] for k, v in whole.items()}


def kmeans_explained(known: Floats, unseen: Floats, n_codes: int, seed: int) -> float:
    """Variance of unseen rows that the nearest of `n_codes` centres explains."""
    if n_codes <= EXACT_UP_TO:
        model = KMeans(n_codes, n_init=1, max_iter=50, random_state=seed).fit(known)
    else:
        model = MiniBatchKMeans(n_codes, batch_size=8192, n_init=1, max_iter=30, random_state=seed).fit(known)
    error = unseen - model.cluster_centers_[model.predict(unseen)]
    return float(1 - np.square(error).sum() / np.square(unseen - unseen.mean(0)).sum())


def table(report: dict) -> str:
    ours = report["tokenizer"]
    lines = [
        f"{report['held_out_windows']} held-out windows",
        "| codebook | codes in use | perplexity | explained variance | k-means, as many codes |",
        "|---|---|---|---|---|",
    ]
    for book, name in (("t", "waveform"), ("f", "amplitude")):
        lines.append(
            f"| {name} | {ours[f'codes_in_use_{book}']:.1%} | {ours[f'perplexity_{book}']:.0f} | "
            f"{ours[f'{name}_ev']:.3f} | {report[f'kmeans_{name}_ev']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command(main)
