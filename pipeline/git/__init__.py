"""Git sources: bare mirrors in the store, verified commits, and exports that are the same everywhere."""

from pipeline.git.export import identity
from pipeline.git.fetch import GitFetch, Place, fetch

__all__ = ["GitFetch", "Place", "fetch", "identity"]
