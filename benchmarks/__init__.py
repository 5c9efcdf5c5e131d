"""Measurements, as ratios of one run: see __main__.py."""
