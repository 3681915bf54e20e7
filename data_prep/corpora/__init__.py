"""Finding recordings and whom they are from."""

from data_prep.corpora.folder import find_recordings, say_subjects, source_of, unusable_in_words
from data_prep.corpora.source import Source, counted

__all__ = ["Source", "counted", "find_recordings", "say_subjects", "source_of", "unusable_in_words"]
