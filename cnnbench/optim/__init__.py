"""Optimizers, learning-rate schedules, penalties."""
