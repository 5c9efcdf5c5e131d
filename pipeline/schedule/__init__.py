"""Nights by the clock: systemd's units, and what installs them."""
