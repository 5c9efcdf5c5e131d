"""Sends packages to other machines over ssh; these need nothing but sshd, a shell and pacman."""
