"""Models whose score is a reconstruction error."""
