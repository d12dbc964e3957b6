"""What exported files are read with: `network_in`, under the name that their `--help` gives."""
