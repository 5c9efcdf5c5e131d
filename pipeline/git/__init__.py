"""Git sources: bare mirrors in the store, verified commits, and exports that are the same everywhere."""
