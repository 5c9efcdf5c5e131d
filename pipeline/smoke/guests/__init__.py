"""Guests of one's own: whether what somebody runs today comes up under the packages."""
