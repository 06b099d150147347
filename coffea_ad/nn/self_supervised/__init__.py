"""Representations of jets and events that are learnt without labels: augmentations, contrastive losses, encoders of sets."""
