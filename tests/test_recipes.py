"""codebrain-finetune --recipe: the paper's settings for each data set, before what the user gives."""

import numpy as np
import pytest
import yaml

from codebrain.data.format import SPLITS
from data_prep.tasks import DATA_SETS
from finetune import recipes, splits
from finetune.cli import _configured, run_command
from finetune.splits import SplitConfig, Windows
from finetune.task import Task
from tests.conftest import write_toy_store

PLACES = ["--ckpt", "none", "--data", "T", "--run_dir", "R"]


def test_every_data_set_has_a_recipe() -> None:
    assert set(recipes.names()) == set(DATA_SETS)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_recipe_is_the_papers_fine_tuning(name) -> None:
    config = _configured([*PLACES, "--recipe", name])
    about = DATA_SETS[name].about
    training, optim = config.training, config.optim
    assert (training.epochs, training.batch_size, training.patience, len(config.seeds)) == (50, 64, 0, 5)
    assert (optim.lr, optim.min_lr, optim.weight_decay, optim.grad_clip) == (1e-4, 1e-6, 5e-4, 5.0)
    assert optim.betas == (0.9, 0.999), "torch's default: the released fine-tuning gives none"
    assert (training.dropout, training.label_smoothing, training.class_weights) == (0.1, 0.1, "none")
    if name.startswith("isruc"):
        assert (config.head, training.sequence_length, training.hidden) == ("sequence", 20, 512)
        assert training.micro_batch == 1, "a sequence of 20 epochs of 30 s is as much as a laptop computes at a time"
    else:
        assert config.head == "mlp"
        assert training.hidden == (800 if name == "seed_v" else round(200 * about.seconds))
    divided = {"within_subject", "split_within_class", "split_by_file"} & {trap.name for trap in about.traps}
    assert config.split.within_subject == bool(divided)


def test_what_the_user_gives_wins(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: faced\ntraining:\n  epochs: 7\n  dropout: 0.3\n")
    config = _configured([*PLACES, "--config", str(file), "--training.dropout", "0.5"])
    assert config.recipe == "faced"
    assert (config.training.epochs, config.training.dropout, config.training.hidden) == (7, 0.5, 2000)
    assert _configured([*PLACES, "--recipe", "isruc_s1", "--head", "mean"]).head == "mean"


def test_recipes_that_do_not_fit_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"--recipe tuap: no such recipe.*Did you mean 'tuab'"):
        _configured([*PLACES, "--recipe", "tuap"])
    store = write_toy_store(tmp_path / "T", classes=("a", "b"))
    arguments = ["--ckpt", "none", "--data", str(store.path), "--run_dir", str(tmp_path / "R"), "--recipe", "faced"]
    with pytest.raises(ValueError, match="--recipe faced, but the store is of the data set 'toy'"):
        run_command(arguments)
    assert not (tmp_path / "R").exists()
    task = Task(name="tuev", protocol="published", kind="multiclass", class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="give `--recipe tuev`"):
        recipes.check("tuab", task)
    recipes.check("tuev", task)


@pytest.mark.parametrize("divided", [True, False])
def test_splits_say_that_they_divide_subjects_only_if_they_do(divided) -> None:
    subject = np.repeat(["a", "b", "c"], 4)
    side = np.tile([0, 0, 1, 2], 3) if divided else np.repeat([0, 1, 2], 4)
    windows = Windows(subject=subject, label=np.arange(12.0), recording=np.arange(12), published=side.astype(np.int8))
    made = splits.make(windows, SplitConfig(within_subject=True))
    assert made.within_subject == divided
    assert [len(getattr(made.folds[0], name)) for name in SPLITS] == ([6, 3, 3] if divided else [4, 4, 4])


def test_a_config_that_is_no_yaml_is_left_to_the_parser(tmp_path) -> None:
    (tmp_path / "broken.yaml").write_text("recipe: [tuab")
    assert recipes.named(["--config", str(tmp_path / "broken.yaml")]) is None
    with pytest.raises(ValueError, match=r"broken.yaml"):
        run_command(["--config", str(tmp_path / "broken.yaml")])


def test_what_a_recipe_says_is_printed(capsys, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: mental_arithmetic\n")
    ways = (
        ["--recipe", "mental_arithmetic"],
        ["--recipe=mental_arithmetic"],
        ["--config", str(tmp_path / "mine.yaml")],
    )
    for flags in ways:
        with pytest.raises(SystemExit):
            _configured([*flags, "--training.epochs", "3", "--print_config"])
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed["training"]["hidden"] == 1000
        assert printed["training"]["epochs"] == 3
    with pytest.raises(ValueError, match="--recipe nosuch: no such recipe"):
        _configured(["--recipe", "nosuch", "--print_config"])
