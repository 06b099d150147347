"""Models whose score is the energy of a density, their Markov chains, and how far these are from the data."""
