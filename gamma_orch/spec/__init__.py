"""The language: YAML in, resources and diagnostics out, with the place of every word."""
