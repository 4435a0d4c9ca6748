"""Small diffusion models, batches and the training loop of tests of few-step methods."""

from types import SimpleNamespace

import torch

from kdzoo.models import Diffusion


def diffusion_model(steps, seed=0, shape=(2,), **options):
    """Return a small diffusion model, in float64."""
    torch.manual_seed(seed)
    return Diffusion(in_shape=shape, steps=steps, **{"width": 8, **options}).double()


def prepared(method, *, steps=1, teacher_steps=4, **options):
    """Return a distiller after ``prepare``, with different weights of student and teacher."""
    student, teacher = diffusion_model(steps, 0), diffusion_model(teacher_steps, 1)
    teacher.calibrate(torch.tensor([[1.0, 3.0], [2.0, 5.0]], dtype=torch.float64))
    distiller = method(student, teacher, **options)
    distiller.prepare({})
    return distiller.train()


def noisy_batch(times, seed=0):
    """Return samples with noise and the uniform numbers that their times are made of."""
    generator = torch.Generator().manual_seed(seed)
    data, noise = torch.randn(2, len(times), 2, generator=generator, dtype=torch.float64)
    return {"input": data, "noise.z": noise, "noise.time": torch.tensor(times, dtype=torch.float64)}


def scaled(distiller, data):
    """Return data with the mean 0 and the deviation 1 of the model."""
    return (data - distiller.teacher.sampler.shift) / distiller.teacher.sampler.scale


def train(distiller, batches, rate=1e-3):
    """Train as Lightning does, with Adam: one batch for each step."""
    trainer = distiller._trainer = SimpleNamespace(global_step=0, estimated_stepping_batches=len(batches))
    optimizer = torch.optim.Adam(distiller.trainable_parameters(), rate)
    states = [module for name, module in distiller.named_modules() if hasattr(module, "after_step")]
    distiller.on_train_start()
    for step, batch in enumerate(batches):
        trainer.global_step = step
        distiller.on_train_batch_start(batch, step)
        loss = sum(value.mean() for value in distiller.losses(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for state in states:
            state.after_step()
