"""Work on finished model files, without torch: cards, thresholds, combinations, windows, eight-bit integers."""
