"""Preparation: recordings of any vendor in, a store of EEG windows out. Needs no torch."""
