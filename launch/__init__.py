"""Thin entry points, run from the repository's root. A package, lest another `launch` on the path take its place."""
