"""What a classifier is worth: by class, in its mistakes, and in what it believes."""
