"""Networks. A factory takes the data spec and settings, and returns a module from images to class scores."""
