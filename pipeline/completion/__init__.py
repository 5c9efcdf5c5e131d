"""Tab completion of ./inv for bash, zsh and fish: what may follow, and the scripts that ask for it."""
