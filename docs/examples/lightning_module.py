"""Training with Lightning: python lightning_module.py."""

import lightning
import torch
from torch import Tensor
from torch_geometric.loader import DataLoader

import cst_operator as cst
from cst_operator.datasets import generate
from cst_operator.solvers import Poisson


class Surrogate(lightning.LightningModule):
    """A model and a loss of this library; Lightning brings the loop, devices and processes."""

    def __init__(self, config: cst.CSTConfig) -> None:
        super().__init__()
        self.model = cst.CSTOperator(config)
        self.loss = cst.SobolevLoss(order=1)

    def training_step(self, batch: cst.Example, index: int) -> Tensor:
        """Loss of a batch of meshes of different sizes."""
        result = self.loss(self.model, cst.Example(*batch))
        self.log_dict({name: term.detach() for name, term in result.terms.items()}, batch_size=8)
        return result.total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at a constant rate."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(epochs: int = 20, samples: int = 64) -> float:
    """Learn Poisson's equation on random domains; the relative L2 error on unseen domains."""
    solutions = generate(Poisson(h=0.1), samples, seed=0, out="data/poisson", progress=False)
    solutions = [solution.to(torch.float32) for solution in solutions]
    ask = cst.Steady(inputs=("f", "distance"), outputs=("u",))
    held = samples // 4
    train, test = cst.TaskDataset(solutions[held:], ask), cst.TaskDataset(solutions[:held], ask)

    config = cst.CSTConfig(dim=2, in_channels=2, out_channels=1, width=32, depth=2, heads=2)
    surrogate = Surrogate(config)
    surrogate.model.fit_normalization(train)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        gradient_clip_val=1.0,
        accelerator="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(surrogate, DataLoader(train, batch_size=8, shuffle=True))
    cst.save(surrogate.model, "runs/lightning")  # for cst.load and the command line
    return cst.evaluate(surrogate.model, test).mean("relative_l2")


if __name__ == "__main__":
    print(f"relative L2 error on unseen domains: {main():.3f}")
