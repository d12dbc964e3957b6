"""What comes after training: a run opened, evaluated, explained, exported, reported."""
