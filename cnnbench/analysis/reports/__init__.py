"""What runs say together: which configuration is better, by how much, and how sure that is."""
