"""The node file: schema, loader, and what its values must have to do with each other."""
