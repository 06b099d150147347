"""Searches in spectra: what simulation says of their shapes, background estimates, bumps, limits, and what they mean for other signals."""
