"""Nightly builds of a branch: from upstream's newest commit to a verdict, unattended."""
