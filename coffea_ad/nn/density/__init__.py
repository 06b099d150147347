"""Models whose score is −log p: normalising flows, what is sampled from them, and their latent space."""
