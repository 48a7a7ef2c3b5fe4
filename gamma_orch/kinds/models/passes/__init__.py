"""The passes, one a file. `job.Job` says what one is given. They run in a worker process only, and are
the only place of the package where torch, transformers and the other heavy libraries are imported.
"""
