"""The commands beside training, a small file each."""
