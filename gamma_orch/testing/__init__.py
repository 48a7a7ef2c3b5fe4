"""The test world: for whoever writes a kind, and for Gamma's own tests and benchmarks.

`laws` is the public suite that every provider passes. `thing` is a whole kind without a server
behind it, kept in one file (`world`). Nothing of the product imports this package.
"""
