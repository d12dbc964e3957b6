"""Sweeps: a grid of runs, expanded, checked and carried out."""
