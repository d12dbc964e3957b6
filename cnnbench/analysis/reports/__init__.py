"""Reports on runs: which configuration is better, by how much, and how certain that is."""
