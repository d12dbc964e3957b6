"""Networks in files that others can use: with what was done to images before them, and checked against the run."""
