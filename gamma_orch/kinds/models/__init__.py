"""Models and their data, as derivations: declared, built once, measured, and pointed at.

`dataset` and `model` are the kinds: what may be written in YAML, and how it converges. Both describe
what they want as a chain of passes (`recipe`), each with a key that is the hash of everything that goes
into it. `passes` are those that exist, one a file; they import torch and its kin, and run in a process
of their own (`worker`), which `building` starts and watches. What they make lies in the artifact store.
"""
