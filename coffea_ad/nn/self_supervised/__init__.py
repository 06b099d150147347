"""Representations of jets and events that are learned without labels, and what they are learned by."""
