"""Models whose score is the distance from a point."""
