"""The commands other than training, a file each."""
