"""The full tier: a whole host with systemd, on which the package is installed and started as users do it."""
