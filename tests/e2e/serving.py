"""A project with a tiny model and a service that serves it, for tests of the whole way."""

from pathlib import Path

from tests.app.running import free_port
from tests.kinds.models.project import project

SERVICE = """apiVersion: gamma/v1
kind: CachePolicy
metadata: {{name: answers}}
spec: {{ttl: 1m}}
---
apiVersion: gamma/v1
kind: Service
metadata: {{name: api}}
spec:
  listen: {{port: {port}}}
  workers: {workers}
  models: [{{model: sentiment}}]
  cache: answers
  rollout: {{watch: 1s}}
  drain: 3s
  limits:
    each: {{by: principal, rate: 100000/s}}
  auth:
    roles:
      caller: [models, predict]
      operator: [models, predict, metrics, live]
    keys:
      frontend: {{secret: "gk_${{secret.frontend-key}}", roles: [caller]}}
      operator: {{secret: "gk_${{secret.operator-key}}", roles: [operator]}}
"""
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  builds: {threads: 1}
  secrets:
    frontend-key: {generate: {length: 40}}
    operator-key: {generate: {length: 40}}
"""


def served(folder: Path, workers: int = 2) -> tuple[Path, int]:
    """The project, and the port of its service."""
    port = free_port()
    project(folder, service=SERVICE.format(port=port, workers=workers))
    (folder / "environments" / "dev" / "environment.yaml").write_text(ENVIRONMENT)
    return folder, port


def key(folder: Path, name: str = "operator") -> str:
    return "gk_" + (folder / ".gamma" / "dev" / "secrets" / f"{name}-key").read_text()
