"""CST under neuraloperator's unmodified Trainer: ragged data, processors, its own tests, UQNO."""

import pytest
import torch
from neuralop.data.datasets import DarcyDataset
from neuralop.losses import H1Loss, LpLoss, WeightedSumLoss
from neuralop.models import UQNO
from neuralop.models.tests import test_uqno as upstream_uqno
from neuralop.training import AdamW, Trainer
from neuralop.training.tests import test_trainer as upstream_trainer
from torch.utils.data import DataLoader, Dataset

import cst_operator as cst
from cst_operator.interop import (
    CST,
    PointDataProcessor,
    RelativeSobolev,
    TrainerDataset,
    TrainerLoss,
    collate,
)
from tests.interop_samples import clouds, small_cst

# Neuraloperator's losses and models warn of every key of a batch that they do not know.
pytestmark = pytest.mark.filterwarnings("ignore:.*unexpected keyword:UserWarning")


def loaders(examples, batch_size):
    """Torch's own collation for one example at a time, ours for more."""
    collation = {} if batch_size == 1 else {"collate_fn": collate}
    return DataLoader(TrainerDataset(examples), batch_size=batch_size, **collation)


def train(model, loader, tests, loss, processor=None, epochs=2, **options):
    trainer = Trainer(model=model, n_epochs=epochs, data_processor=processor)
    optimizer = AdamW(model.parameters(), lr=3e-3)
    metrics = trainer.train(
        loader,
        tests,
        optimizer,
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs),
        training_loss=loss,
        eval_losses=options.pop("eval_losses", {"l2": RelativeSobolev()}),
        **options,
    )
    return trainer, metrics


@pytest.mark.parametrize("batch_size", [1, 8])
def test_trainer_learns_on_ragged_data(batch_size, seed, generator):
    examples = clouds(generator, 16)
    model = small_cst(seed)
    processor = PointDataProcessor(2, 1, 1).fit(examples)
    test = {"test": loaders(examples, 4)}
    before = Trainer(model=model, n_epochs=1, data_processor=processor).evaluate(
        {"l2": RelativeSobolev()}, test["test"], log_prefix="test"
    )
    epochs = 2 if batch_size == 1 else 8
    _, metrics = train(
        model, loaders(examples, batch_size), test, RelativeSobolev(), processor, epochs
    )
    assert metrics["test_l2"] < 0.8 * before["test_l2"]


def test_evaluation_does_not_depend_on_the_batch_size(seed, generator):
    examples = clouds(generator, 16)
    processor = PointDataProcessor(2, 1, 1).fit(examples)
    trainer = Trainer(model=small_cst(seed), n_epochs=1, data_processor=processor)
    losses = {
        "weighted": RelativeSobolev(),
        "plain": LpLoss(d=2),
        "sobolev": TrainerLoss(cst.SobolevLoss(order=1)),
    }
    found = [
        trainer.evaluate(losses, loaders(examples, size), log_prefix="test") for size in (1, 4, 16)
    ]
    for name, value in found[0].items():
        assert float(value) > 0.01
        for other in found[1:]:
            assert float(other[name]) == pytest.approx(float(value), abs=1e-5), name


def test_sobolev_losses_train_and_are_evaluated_without_gradients(seed, generator):
    examples = clouds(generator, 8, least=20)
    ours = TrainerLoss(cst.SobolevLoss(order=1, weights=(1.0, 0.1)))
    both = WeightedSumLoss([ours, RelativeSobolev(order=1)])
    tests = {"test": loaders(examples, 3)}
    _, metrics = train(
        small_cst(seed), loaders(examples, 4), tests, both, eval_losses={"ours": ours, "both": both}
    )
    assert 0 < metrics["test_ours"] < torch.inf
    assert 0 < metrics["test_both"] < torch.inf


def test_what_the_trainer_saved_becomes_a_checkpoint_of_the_library(seed, generator, tmp_path):
    examples = clouds(generator, 4)
    model = small_cst(seed)
    train(model, loaders(examples, 2), {}, RelativeSobolev(), save_every=1, save_dir=tmp_path / "t")
    loaded = CST.from_checkpoint(tmp_path / "t", "model").eval()
    ours = cst.load(cst.save(loaded.operator, tmp_path / "ours"))
    assert torch.equal(ours(*examples[0]), model.eval().operator(*examples[0]))


def test_a_run_of_the_library_goes_on_in_the_trainer(seed, generator, tmp_path):
    examples = clouds(generator, 4)
    config = cst.FitConfig(steps=2, batch_size=2, seed=seed)
    cst.fit(small_cst(seed).operator, examples, config=config, out=tmp_path / "run", progress=False)
    model = CST.from_operator(cst.load(tmp_path / "run"))
    before = Trainer(model=model, n_epochs=1).evaluate(
        {"l2": RelativeSobolev()}, loaders(examples, 4), log_prefix="test"
    )
    wanted = cst.evaluate(cst.load(tmp_path / "run"), examples).mean("relative_l2")
    assert float(before["test_l2"]) == pytest.approx(wanted, rel=1e-5)  # single precision
    train(model, loaders(examples, 4), {"test": loaders(examples, 4)}, RelativeSobolev())


def test_the_processor_scales_masks_and_returns_another_dictionary(generator):
    examples = clouds(generator, 5)
    processor = PointDataProcessor(2, 1, 1).fit(examples)
    batch = collate([TrainerDataset(examples)[i] for i in range(5)])
    kept = {key: value.clone() for key, value in batch.items()}
    processor.train()
    sample = processor.preprocess(batch)
    assert all(torch.equal(batch[key], kept[key]) for key in kept) and set(batch) == set(kept)
    u, weights = sample["y"][sample["query_mask"]], batch["query_weights"][batch["query_mask"]]
    # Mean and spread in the weights of all training examples, in single precision.
    assert float(weights @ u[:, 0]) / 5 == pytest.approx(0, abs=1e-5)
    assert float(weights @ u[:, 0].square()) / 5 == pytest.approx(1, abs=1e-5)
    assert not sample["y"][~sample["query_mask"]].any() and not sample["x"][~sample["mask"]].any()
    output, _ = processor.postprocess(sample["y"], sample)
    assert output is sample["y"]
    processor.eval()
    other = processor.preprocess(batch)
    assert torch.equal(other["y"], batch["y"])
    back, _ = processor.postprocess(sample["y"], other)
    # Scaling there and back: rounding of single precision on values of about 4.
    assert torch.allclose(back, batch["y"], rtol=0, atol=1e-5)
    assert not back[~batch["query_mask"]].any()


def test_the_processor_comes_back_from_disk(generator, tmp_path):
    processor = PointDataProcessor(2, 1, 1).fit(clouds(generator, 5))
    torch.save(processor.state_dict(), tmp_path / "processor.pt")
    other = PointDataProcessor(2, 1, 1)
    assert float(other.normalization.out_mean) == 0
    other.load_state_dict(torch.load(tmp_path / "processor.pt", weights_only=True))
    for name, value in processor.normalization.named_buffers():
        assert torch.equal(dict(other.normalization.named_buffers())[name], value)


def test_the_processor_wraps_a_model(seed, generator):
    examples = clouds(generator, 3)
    model = small_cst(seed)
    processor = PointDataProcessor(2, 1, 1).fit(examples)
    batch = collate([TrainerDataset(examples)[i] for i in range(3)])
    with pytest.raises(cst.FieldError, match="wraps no model"):
        processor(**batch)
    processor.wrap(model).eval()
    assert not model.training
    answer, sample = processor(**batch)
    inner = model(**sample)[sample["query_mask"]]
    decoded = processor.normalization.decode(inner)
    assert torch.equal(answer[batch["query_mask"]], decoded)


class Doubling(torch.nn.Module):
    """Answers twice the last channel at unit scale, which no processor scales here."""

    def forward(self, x, **ignored):
        return 2 * x[..., -1:]


def test_autoregression_feeds_answers_back(generator):
    x = torch.rand(2, 7, 2, generator=generator)
    frames = torch.stack([x[..., 1:] * 2 ** (t + 1) for t in range(3)], dim=1)
    batch = {"x": x, "pos": torch.rand(2, 7, 2, generator=generator), "y": frames}
    processor = PointDataProcessor(2, 2, 1)
    # What is predicted has the same scale as a source and as an answer.
    processor.normalization.in_mean.copy_(torch.tensor([5.0, 0.0]))
    processor.normalization.in_std.copy_(torch.tensor([1.0, 3.0]))
    processor.normalization.out_std.fill_(3.0)
    trainer = Trainer(model=Doubling(), n_epochs=1, data_processor=processor)
    steps = []

    def loss(prediction, y, **sample):
        steps.append(prediction)
        return RelativeSobolev()(prediction, y, **sample)

    found = trainer.evaluate({"l2": loss}, [batch], log_prefix="test", mode="autoregression")
    assert len(steps) == 3
    # The powers of two are exact; dividing and multiplying by three rounds.
    assert float(found["test_l2"]) < 1e-6
    limited = trainer.evaluate(
        {"l2": RelativeSobolev()}, [batch], log_prefix="t", mode="autoregression", max_steps=2
    )
    assert float(limited["t_l2"]) < 1e-6
    assert torch.equal(batch["y"], frames) and torch.equal(batch["x"], x)


def test_an_autoregression_needs_frames(generator):
    processor = PointDataProcessor(2, 1, 1).eval()
    batch = {"x": torch.rand(1, 7, 1), "pos": torch.rand(1, 7, 2), "y": torch.rand(1, 7, 1)}
    with pytest.raises(cst.FieldError, match="y of \\[batch, frames, points, channels\\]"):
        processor.preprocess(batch, step=0)


def test_an_example_without_weights_is_named(generator):
    example = clouds(generator, 1)[0]
    del example.target.weights
    with pytest.raises(cst.FieldError, match="target of example 0 has no quadrature weights"):
        TrainerDataset([example])[0]


def test_items_of_different_kinds_do_not_batch():
    with pytest.raises(cst.FieldError, match="different keys"):
        collate([{"pos": torch.rand(2, 2), "query_pos": torch.rand(2, 2)}, {"pos": torch.rand(2)}])


@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_darcy_flow_is_read_by_its_own_data_set_and_scored_by_its_own_losses(seed, shared_data):
    darcy = DarcyDataset(
        root_dir=shared_data / "neuraloperator_small",
        n_train=64,
        n_tests=[10, 10],
        batch_size=16,
        test_batch_sizes=[10, 10],
        train_resolution=16,
        test_resolutions=[16, 32],
        download=False,
    )
    tests = {n: DataLoader(db, batch_size=10) for n, db in darcy.test_dbs.items()}
    losses = {"l2": LpLoss(d=2), "h1": H1Loss(d=2)}
    model = small_cst(seed, interpolant_radius=0.2)
    _, metrics = train(
        model,
        DataLoader(darcy.train_db, batch_size=8),
        tests,
        H1Loss(d=2),
        darcy.data_processor,
        epochs=6,
        eval_losses=losses,
    )
    # The mean of the training fields has errors of .49 and .76 at 16, and .50 and .81 at 32.
    assert metrics["16_l2"] < 0.35 and metrics["16_h1"] < 0.6
    # A function of the coordinate is not spoilt by a resolution that it never saw.
    assert metrics["32_l2"] < 1.1 * metrics["16_l2"] and metrics["32_h1"] < 0.7


class Grids(Dataset):
    """Small fields in the place of the vectors of neuraloperator's own tests."""

    def __init__(self, n_examples):
        generator = torch.Generator().manual_seed(n_examples)
        self.x, self.y = torch.rand(2, max(1, n_examples // 25), 1, 4, 4, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.y[index]}


class Substitute:
    """CST in the place of neuraloperator's ``DummyModel(features)``."""

    from_checkpoint = CST.from_checkpoint

    def __new__(cls, features):
        return small_cst(features, depth=1)


@pytest.mark.parametrize(
    "module, name",
    [
        (upstream_trainer, "test_model_checkpoint_saves"),
        (upstream_trainer, "test_model_checkpoint_and_resume"),
        (upstream_trainer, "test_load_from_checkpoint"),
        (upstream_uqno, "test_uqno_train_eval"),
        (upstream_uqno, "test_uqno_checkpoint"),
    ],
)
@pytest.mark.filterwarnings("ignore:Attempting to update metadata:UserWarning")
def test_neuraloperators_own_tests_pass_with_cst(module, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "DummyModel", Substitute)
    monkeypatch.setattr(module, "DummyDataset", Grids, raising=False)
    getattr(module, name)()


def test_uqno_bands_cst(seed, generator):
    base = small_cst(seed)
    model = UQNO(base_model=base, residual_model=small_cst(seed + 1))
    x = torch.rand(2, 1, 4, 4, generator=generator)
    solution, quantile = model(x)
    assert torch.equal(solution, base.eval()(x)) and not solution.requires_grad
    quantile.square().mean().backward()
    assert any(p.grad is not None for p in model.residual_model.parameters())
    assert all(p.grad is None for p in model.base_model.parameters())
