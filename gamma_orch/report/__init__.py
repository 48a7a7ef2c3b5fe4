"""What an environment has done in a span of time, for people: availability, objectives, alerts, changes.

`gathering` asks the Prometheus and the ledger of the environment and gives what they said as it is.
`contents` makes the report of it; that and what it calls is pure. `page` makes one HTML file of a report,
with the plots of `plots` in it, and `pdf` a PDF of that file. Called by `gamma report`.

What always holds: what is not known is said and never drawn, neither as zero nor as 100 %; beside each figure
stands the question that it was reckoned from.
"""
