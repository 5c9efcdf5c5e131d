"""One file that carries a build to another machine: written, verified, unpacked."""
