"""Data sets, their split, and the batches made of them."""
