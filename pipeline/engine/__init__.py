"""Runs one command in an image, with the network off and nothing of the host in reach."""
