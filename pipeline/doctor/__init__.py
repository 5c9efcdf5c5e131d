"""What this host can do for a release and what not, each with its remedy: probes, not guesses."""
