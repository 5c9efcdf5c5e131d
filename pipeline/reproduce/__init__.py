"""A second build of the same inputs under other circumstances, and what to say where it differs."""
