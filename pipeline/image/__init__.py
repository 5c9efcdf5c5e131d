"""Root file systems in which things are built: defined in containers/, pinned by a lock beside each."""
