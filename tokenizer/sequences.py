"""Token sequences of one recording in a file: NPZ for arrays, Parquet for tables.

Shapes: C channels, P patches per channel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codebrain.data.format import whole

Indices = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, kw_only=True)
class TokenSequences:
    """Both token sequences of a recording, and what they were made with."""

    codes_t: Indices
    """(C, P), temporal codes."""
    codes_f: Indices
    """(C, P), frequency codes."""
    ch_names: tuple[str, ...]
    """Names of the C channels."""
    tokenizer: str
    """Run, folder or Hub id that the tokenizer was loaded from."""
    tokenizer_hash: str
    """Of its sizes and weights: codes compare only under the same one."""
    window_seconds: float
    """What the tokenizer saw at a time: a code depends on the patches around it."""
    sfreq: float
    """Sampling rate that the signal was brought to, in Hz."""
    patch_size: int
    """Samples per patch."""

    @property
    def times(self) -> npt.NDArray[np.floating[Any]]:
        """Start of each patch in seconds from the recording's, (P,)."""
        return np.arange(self.codes_t.shape[1], dtype=np.float64) * (self.patch_size / self.sfreq)

    @property
    def origin(self) -> dict[str, Any]:
        """What is said once for a whole file."""
        return {
            name: getattr(self, name)
            for name in ("tokenizer", "tokenizer_hash", "window_seconds", "sfreq", "patch_size")
        }

    def write(self, path: Path) -> None:
        """Write the file that `path` ends like; it appears under its name only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            _WRITERS[path.suffix](partial, self)


def require_format(path: Path) -> None:
    """Raise ValueError, before long work, if `TokenSequences.write` could not write such a file."""
    if path.suffix not in _WRITERS:
        raise ValueError(f"--output {path} must end in {' or '.join(_WRITERS)}")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(f"--output {path}: Parquet needs pyarrow, which is not installed: pip install pyarrow")


def smallest_dtype(n_codes: int) -> type[np.unsignedinteger[Any]]:
    """Of codes in a file: uint16, unless the codebook needs more."""
    return np.uint16 if n_codes <= 2**16 else np.uint32


def _write_npz(path: Path, sequences: TokenSequences) -> None:
    """codes_t and codes_f (C, P), times (P,), ch_names (C,), and the origin."""
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            codes_t=sequences.codes_t,
            codes_f=sequences.codes_f,
            times=sequences.times,
            ch_names=np.array(sequences.ch_names),
            **sequences.origin,
        )


def _write_parquet(path: Path, sequences: TokenSequences) -> None:
    """A row per channel and patch: time, channel, code_t, code_f; the origin is the table's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_chans, n_patches = sequences.codes_t.shape
    channel = np.repeat(np.arange(n_chans, dtype=np.int32), n_patches)
    table = pa.table(
        {
            "time": np.tile(sequences.times, n_chans),
            "channel": pa.DictionaryArray.from_arrays(channel, list(sequences.ch_names)),
            "code_t": sequences.codes_t.ravel(),
            "code_f": sequences.codes_f.ravel(),
        }
    )
    pq.write_table(table.replace_schema_metadata({name: str(value) for name, value in sequences.origin.items()}), path)


_WRITERS: dict[str, Callable[[Path, TokenSequences], None]] = {".npz": _write_npz, ".parquet": _write_parquet}
