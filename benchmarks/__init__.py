"""Each figure that the README states, one command each. See README.md in this folder."""
