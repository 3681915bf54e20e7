"""Finding recordings and whom they are from."""

from data_prep.corpora.folder import Source, counted, find_recordings, say_subjects

__all__ = ["Source", "counted", "find_recordings", "say_subjects"]
