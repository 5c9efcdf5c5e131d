"""A pacman repository of finished packages: published, synced to another host, served."""
