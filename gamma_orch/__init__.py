"""Gamma: a declarative, GitOps orchestrator for teams that run their own AI application."""

__version__ = "0.1.0"
