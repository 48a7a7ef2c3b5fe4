"""Fine-tune a model by LoRA: inputs `model` and `data`, output an adapter folder for `merge` or for sharing.

The folder holds adapter_config.json, adapter_model.safetensors (the head of a classifier included),
gamma-model.json and the tokenizer. The same parameters, inputs and threads give the same bytes, whether or
not the run was killed on its way; another number of threads gives other bytes.

Parameters: rank, alpha, dropout, targets ("all-linear" or ends of layer names), those of `training.Course`
(epochs, maxSteps, batch, gradientAccumulation, learningRate, schedule, warmup as a share of the steps,
weightDecay, clip, seed, precision, evaluateEvery, earlyStop {patience, metric}), length, labels,
gradientCheckpointing, modelDropout. Facts: those of `training.train`, and the labels.
"""

from dataclasses import replace

import numpy as np
import torch

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import batches, lora, objective, torch_folder, training
from gamma_orch.kinds.models.passes.training import Course


def run(job: Job) -> Json:
    """Raises Permanent for parameters or data that nothing can learn from, and where the loss is no "
    "number."""
    folder, data, params = job.inputs["model"], job.inputs["data"], job.params
    card = torch_folder.card(folder)
    if card.task == "embeddings":
        raise Permanent(
            "There is no fine-tuning of embeddings: rows of single texts do not say what should be near "
            "what. Use the model as it is, or give it the task text-classification."
        )
    job.tell("reading the data", None)
    rows = batches.rows(data, "train", card.task)
    labels = batches.labels(rows, card.task, params.get("labels") or card.labels)
    card = replace(card, labels=labels)
    held = batches.rows(data, "validation", card.task)
    course = Course.of(params, card.task)
    with training.settled(job.threads, course.seed):
        model, news = torch_folder.load_to_train(folder, card, course.precision)
        how = batches.encoding(folder, card, model, params)
        train, validation = batches.encode(rows, how), batches.encode(held, how)
        if params.get("modelDropout") is not None:
            torch_folder.set_dropout(model, params["modelDropout"])
        model = lora.Lora.of(params).attach(model, news, card.task)
        if params.get("gradientCheckpointing"):
            model.gradient_checkpointing_enable({"use_reentrant": False})

        def loss(index: np.ndarray, done: float) -> torch.Tensor:
            batch = batches.collate([train[i] for i in index], how)
            logits = objective.forward(model, batch, how).logits
            return objective.cross_entropy(*objective.aligned(logits, batch["labels"], how))

        facts = training.train(
            job,
            course,
            model,
            [len(example.tokens) for example in train],
            loss,
            lambda tell: objective.measure(model, validation, how, course.precision, tell),
        )
        lora.write(model, job.out)
    torch_folder.copy_tokenizer(folder, job.out)
    replace(card, graphs={"adapter": lora.WEIGHTS}, base=torch_folder.digest(folder)).write(job.out)
    return {**facts, "labels": list(labels), "rows": {"train": len(train), "validation": len(validation)}}
