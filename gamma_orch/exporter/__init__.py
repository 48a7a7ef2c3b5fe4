"""One process that collects metrics, and shows them to Prometheus: `python -m gamma_orch.exporter FOLDER`.

contract   the file that says what a collector is; written by whoever declares it
app        HTTP: who may ask, and for what
collectors the files, and what came of each: changed ones are opened anew, and none waits for another
source     what all that collect have in common
sql, probe, host, valkey, python    they collect
child      the process in which a function of somebody else's runs
"""
