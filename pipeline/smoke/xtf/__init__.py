"""Run a built Xen Test Framework as guests of the package, by the rules of its own runner."""
