"""The running system, as kinds: what the API serves, to whom, how often, and from which cache.

`service` converges the processes: it compiles a Service and the policies that it names into one bundle
(`compiling`), gives it to each worker (`rollout`), and returns to the one before if the new one does not do
well. The app that runs bundles is `gamma_orch.app`, which knows nothing of specs: `app.bundle` and
`app.control` are all that the two share.
"""
