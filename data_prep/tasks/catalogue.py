"""The part of docs/datasets.md that follows from the code: `python -m data_prep.tasks.catalogue` prints it."""

from collections.abc import Iterator

from data_prep.clean import CleanConfig
from data_prep.tasks import DATA_SETS
from data_prep.tasks.base import About

BEGIN, END = "<!-- printed by python -m data_prep.tasks.catalogue -->", "<!-- end -->"
_BINARY = "AUROC, balanced accuracy, PR-AUC"
_MULTICLASS = "kappa, balanced accuracy, weighted F1"


def markdown() -> str:
    """A table of all data sets, then a section for each."""
    lines = [
        "| data set | classes | subjects | windows | length | channels | split: train / validation / test | figures |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(kind.about) for kind in DATA_SETS.values()),
    ]
    for kind in DATA_SETS.values():
        lines += ["", *_section(kind.about)]
    return "\n".join(lines)


def _row(about: About) -> str:
    cells = [
        f"[`{about.name}`](#{about.name})",
        str(len(about.class_names)),
        _known(about.subjects),
        _known(about.windows),
        f"{about.seconds:g} s",
        str(len(about.channels)),
        about.split,
        _BINARY if len(about.class_names) == 2 else _MULTICLASS,
    ]
    return f"| {' | '.join(cells)} |"


def _section(about: About) -> Iterator[str]:
    yield f"### {about.name}"
    yield ""
    yield f"{about.title}: {about.url}"
    yield ""
    yield from (f"    {line}" for line in about.layout.splitlines())
    yield ""
    yield f"Classes: {', '.join(about.class_names)}. {_preparation(about)}"
    if about.note:
        yield about.note
    yield ""
    if not about.traps:
        yield "No trap is known: both protocols give the same windows."
        return
    yield "| trap | `--protocol published` | `--protocol corrected` |"
    yield "|---|---|---|"
    yield from (f"| `{trap.name}` | {trap.published} | {trap.corrected} |" for trap in about.traps)


def _preparation(about: About) -> str:
    reference = "average reference, " if about.reference == "average" else ""
    target = f"{about.clean.sfreq:g} Hz"
    rate = f"At {target}" if about.native == target else f"From {about.native} to {target}"
    return f"{rate}, {reference}{_filters(about.clean)}."


def _filters(clean: CleanConfig) -> str:
    if clean.l_freq is None and clean.h_freq is None:
        return "no filter"
    band = f"{clean.l_freq:g}-{clean.h_freq:g} Hz" if clean.h_freq else f"above {clean.l_freq:g} Hz"
    notch = f", notch {clean.notch:g} Hz" if isinstance(clean.notch, float) else ""
    return f"{band}{notch}, {'filtered before resampling' if clean.order == 'filter_first' else 'resampled first'}"


def _known(number: int | None) -> str:
    return "not given" if number is None else f"{number:,}"


if __name__ == "__main__":
    print(markdown())
