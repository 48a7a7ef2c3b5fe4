"""Values and pure functions. Standard library only: no I/O, no clock, no randomness.

Everything that decides anything lives here, so that it can be tested as a table and
replayed from a log. The layers above fetch the inputs and carry out the outputs.
"""
