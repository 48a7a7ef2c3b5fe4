"""The page that shows dashboards without a Grafana: each panel's questions are asked of Prometheus, and drawn
live. `gamma dashboards` serves it, to the people of one machine."""
