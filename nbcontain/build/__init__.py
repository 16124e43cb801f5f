"""From a Dockerfile to an image: a plan of file system changes, and a solver that makes them."""
