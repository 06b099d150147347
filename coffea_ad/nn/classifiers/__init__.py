"""Classifiers: two samples told apart, whose score is the log of the ratio of their densities."""

from __future__ import annotations
