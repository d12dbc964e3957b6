"""Networks. A factory takes the data spec and settings, and returns a module that maps images to class scores."""
