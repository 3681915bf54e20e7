"""What each of stage 1's defaults is worth: the tiny preset with one of them off at a time, and the published choices.

    python benchmarks/stage1_ablation.py --data STORE --held_out Subject28 Subject29 --steps 600 --output build/ablation

Every row is a run of pretrain/stage1.py in a folder of its own, on the same windows in the same order; a row that has
run is not run again. Prints the table of the last validation; curves.png shows every validation of every row.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from codebrain.training.logging import read_metrics

ROOT = Path(__file__).resolve().parent.parent
FIGURES = (
    "waveform_ev",
    "amplitude_ev",
    "phase_cosine",
    "codes_in_use_t",
    "perplexity_t",
    "codes_in_use_f",
    "perplexity_f",
)

PUBLISHED = {
    "model.conv_norm": "batch",
    "model.linear_path": "false",
    "model.codebook_start": "random",
    "model.revive_below": "0",
    "model.decay": "0.99",
    "model.waveform": "raw",
    "model.amplitude": "linear",
    "model.phase": "angle",
    "losses.amplitude": "1",
    "losses.phase": "1",
    "losses.commitment": "1",
    "losses.contrastive": "1",
    "losses.contrast_on": "tokens",
    "start.centre": "false",
}
"""The choices of published.yaml, at tiny's sizes and learning rate."""

ROWS: dict[str, dict[str, str]] = {
    "all on": {},
    "raw waveform target": {"model.waveform": "raw"},
    "codes from the first step, at random": {"model.codebook_start": "random"},
    "k-means after the first step": {"start.share": "0"},
    "no noise before k-means": {"start.noise": "false"},
    "no revival": {"model.revive_below": "0"},
    "no linear path": {"model.linear_path": "false"},
    "amplitudes not centred": {"start.centre": "false"},
    "linear amplitude": {"model.amplitude": "linear"},
    "phase as an angle": {"model.phase": "angle"},
    "no contrastive term": {"losses.contrastive": "0"},
    "rotation trick": {"model.rotation_trick": "true"},
    "published": PUBLISHED,
}


def main() -> None:
    options = parse()
    rows = {name: ROWS[name] for name in options.rows}
    for name, changes in rows.items():
        train(folder(options, name), changes, options)
    ends = {name: read_metrics(folder(options, name))[-1] for name in rows}
    print(table(ends))
    (options.output / "results.json").write_text(json.dumps(ends, indent=2) + "\n")
    draw(options, list(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="stores")
    parser.add_argument("--held_out", nargs="+", required=True, help="subjects to validate on")
    parser.add_argument("--steps", type=int, default=600, help="optimizer updates of each row")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help="which rows")
    parser.add_argument("--output", type=Path, default=Path("build/ablation"), help="folder for runs and results")
    return parser.parse_args()


def folder(options: argparse.Namespace, name: str) -> Path:
    return options.output / name.replace(" ", "_").replace(",", "")


def train(run_dir: Path, changes: dict[str, str], options: argparse.Namespace) -> None:
    every = str(max(1, options.steps // 6))
    flags = {"loop.total_steps": str(options.steps), "loop.eval_every": every, "loop.save_every": every, **changes}
    command = [sys.executable, str(ROOT / "pretrain" / "stage1.py")]
    command += ["--config", str(ROOT / "pretrain" / "configs" / "stage1" / "tiny.yaml"), "--run_dir", str(run_dir)]
    command += ["--data", *options.data, "--split.valid_subjects", *options.held_out]
    command += [f"--{key}={value}" for key, value in flags.items()]
    subprocess.run(command, check=True, env=dict(os.environ))


def table(ends: dict[str, dict[str, float]]) -> str:
    lines = ["| held-out subjects | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for name, figures in ends.items():
        cells = [
            f"{figures.get(f'valid/{figure}', float('nan')):{'.1%' if figure.startswith('codes_in_use') else '.3g'}}"
            for figure in FIGURES
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(options: argparse.Namespace, names: list[str]) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = {
        "waveform_ev": "explained variance, waveform",
        "amplitude_ev": "explained variance, log-amplitude",
        "perplexity_t": "temporal perplexity, codes",
        "perplexity_f": "frequency perplexity, codes",
    }
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    for axis, (key, title) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        for color, name in zip(colormaps["tab20"].colors, names, strict=False):
            lines = [line for line in read_metrics(folder(options, name)) if f"valid/{key}" in line]
            look = {"color": "black", "linewidth": 2.5} if name == "all on" else {"color": color}
            axis.plot(
                [line["step"] for line in lines], [line[f"valid/{key}"] for line in lines], ".-", label=name, **look
            )
        if key.endswith("_ev"):
            axis.set_ylim(-0.3, 0.5)  # an untrained decoder is anywhere below
        axis.set_title(f"{title}, held-out subjects", fontsize=9)
        axis.set_xlabel("step (optimizer updates)")
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=7)
    figure.savefig(options.output / "curves.png", dpi=130)


if __name__ == "__main__":
    main()
