"""The distribution specification: images from registries and to them."""
