"""What a network has learnt, and what it looks at, as pictures."""
