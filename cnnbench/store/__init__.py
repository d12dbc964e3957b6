"""The run directory on disk: what is written, read, locked and found there."""
