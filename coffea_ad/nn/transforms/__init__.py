"""Preprocessing that lives inside the model, and so inside the exported graph."""
