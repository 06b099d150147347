"""Rows → batches → epochs → the kept one, how it went, and whether it worked."""
