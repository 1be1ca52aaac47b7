"""Training in a loop of one's own: python plain_pytorch.py."""

import torch
from torch_geometric.loader import DataLoader

import cst_operator as cst
from cst_operator.datasets import generate
from cst_operator.solvers import Poisson


def main(epochs: int = 20, samples: int = 64) -> float:
    """Learn Poisson's equation on random domains; the relative L2 error on unseen domains."""
    solutions = generate(Poisson(h=0.1), samples, seed=0, out="data/poisson", progress=False)
    solutions = [solution.to(torch.float32) for solution in solutions]
    ask = cst.Steady(inputs=("f", "distance"), outputs=("u",))
    held = samples // 4
    train, test = cst.TaskDataset(solutions[held:], ask), cst.TaskDataset(solutions[:held], ask)

    config = cst.CSTConfig(dim=2, in_channels=2, out_channels=1, width=32, depth=2, heads=2)
    model = cst.CSTOperator(config).fit_normalization(train)
    loss = cst.SobolevLoss(order=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        # PyTorch Geometric's loader batches meshes of different sizes.
        for batch in DataLoader(train, batch_size=8, shuffle=True):
            optimizer.zero_grad()
            loss(model, batch).total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return cst.evaluate(model, test).mean("relative_l2")


if __name__ == "__main__":
    print(f"relative L2 error on unseen domains: {main():.3f}")
