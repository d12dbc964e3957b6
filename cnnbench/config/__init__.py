"""What a run is configured with: composed by Hydra, checked, frozen, identified."""
