"""Data sets, how they are split, and their batches."""
