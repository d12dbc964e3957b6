"""Networks in files that others can use: with the preprocessing of images, and checked against the run."""
