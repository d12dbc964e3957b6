"""From a plan to a trained network: set up once, stepped, recorded, resumed."""
