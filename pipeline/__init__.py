"""Builds, checks, boots and ships the AUR's Xen package."""
