"""What a store holds, for a person."""

from __future__ import annotations

from collections import Counter

from codebrain.data.format import Store


def describe(store: Store) -> str:
    """Hours, subjects, channels, and what was left out."""
    info = store.info
    usable = [recording for recording in store.recordings if recording.status == "ok"]
    sets = Counter(shard.ch_names for shard in store.shards)
    lines = [
        f"{store.path}",
        f"windows     {store.n_windows:,} of {info.window_seconds:g} s at {info.sfreq:g} Hz, {store.hours:.2f} hours",
        f"subjects    {len({recording.subject for recording in usable})} in {len(usable)} recordings",
    ]
    for names, count in sets.most_common(5):
        lines.append(f"channels    {len(names)} in {count} recordings: {' '.join(names)}")
    if info.task:
        lines.append(f"task        {info.task.name} ({info.task.protocol}): {', '.join(info.task.class_names)}")
    lines.append(f"rejected    {sum(recording.rejected for recording in store.recordings):,} windows")
    left_out = [recording for recording in store.recordings if recording.status != "ok"]
    lines += [f"left out    {recording.path}: {recording.reason}" for recording in left_out[:20]]
    if len(left_out) > 20:
        lines.append(f"            and {len(left_out) - 20} more: see recordings.csv")
    return "\n".join(lines)
