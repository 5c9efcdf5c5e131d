"""What changed from one build's packages to another's, for a human; see compare.compare."""
