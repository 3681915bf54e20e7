"""Stores of EEG windows: the file format and the torch Dataset over it."""
