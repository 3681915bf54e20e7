"""Tests; the fixtures are in conftest.py."""
