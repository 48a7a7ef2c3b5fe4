"""Add an adapter to its base: inputs `model` and `adapter`, output a whole PyTorch folder. No parameters."""

from dataclasses import replace

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import lora, torch_folder, training


def run(job: Job) -> Json:
    """Raises Permanent where the adapter was trained on another base."""
    folder, adapter = job.inputs["model"], job.inputs["adapter"]
    base, said = torch_folder.card(folder), torch_folder.card(adapter)
    if (base.architecture, base.task) != (said.architecture, said.task):
        raise Permanent(
            f"The adapter is for {said.task} on {said.architecture}, and the model given is "
            f"{base.architecture} for {base.task}. An adapter can only be merged into the base that it was "
            "trained on."
        )
    if said.base and said.base != torch_folder.digest(folder):
        raise Permanent(
            "The model given is not the base that the adapter was trained on: their contents differ. Merge "
            f"it into the one with the digest {said.base[:12]}."
        )
    with training.settled(job.threads, 0):
        base = replace(base, labels=said.labels)
        model = lora.merged(torch_folder.load(folder, base), adapter)
        torch_folder.write(model, base, adapter, job.out)
    return {"parameters": sum(p.numel() for p in model.parameters())}
