"""What comes after training: a run opened again, evaluated, explained, exported, reported."""
