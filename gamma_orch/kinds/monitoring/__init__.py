"""The kinds of monitoring: what is measured, what is told of it, and to whom."""
