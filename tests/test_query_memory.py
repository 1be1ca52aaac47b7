"""Any number of queries within the memory that the caller sets."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cst_operator._query_memory import fitting_chunk, numbers_per_query
from cst_operator.cst_config import ARCHITECTURES, CSTConfig
from cst_operator.ensemble import Ensemble
from cst_operator.errors import ConfigError, InputError
from cst_operator.fields import PointField
from cst_operator.model import CSTOperator
from tests.live_memory import LiveMemory
from tests.model_samples import KINDS, known_field, queries_in, tiny_model

SIZES: dict[str, dict[str, object]] = {
    **{name: dataclasses.asdict(size) for name, size in ARCHITECTURES.items()},
    "wide networks": {"hidden": 512},
    "many frequencies": {"width": 32, "heads": 2, "hidden": 16, "fourier_features": 512},
    "many channels": {"in_channels": 64},
    "space-time": {"dim": 3, "in_channels": 64, "transient": True},
    "many features": {"attention": ("kernel",), "sites": 256},
    "many slices": {"attention": ("slice",), "sites": 256},
    "aggregation": {
        "width": 24,
        "hidden": 16,
        "fourier_features": 8,
        "anchors": 30,
        "aggregate_at_queries": True,
        "interpolant_points": 60,
    },
    "wave": {"flow": "wave", "flow_of": "hidden", "flow_steps": 3, "hidden": 16},
}


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES.keys())
def test_a_query_takes_what_is_stated_and_not_much_less(changes, generator):
    settings = {"dim": 2, "in_channels": 1, "out_channels": 1, "heads": 4} | changes
    model = CSTOperator(CSTConfig(**settings)).eval()
    config = model.config
    places = torch.rand(1, 60, config.coordinates, generator=generator)
    peaks = []
    with torch.no_grad():
        source = PointField(
            pos=places[0, :, : config.dim],
            u=torch.randn(60, config.in_channels, generator=generator),
            weights=torch.ones(60),
        )
        encoded = model.encode(source)
        for count in (1000, 3000):
            with LiveMemory() as live:
                model.decode(encoded, torch.rand(1, count, config.coordinates))
            peaks.append(live.peak)
    found = (peaks[1] - peaks[0]) / 2000 / 4  # bytes of float32
    assert found <= numbers_per_query(config) <= 2.5 * found


PEAK = """
import sys
from pathlib import Path
import torch
import cst_operator as cst

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

torch.manual_seed(0)
model = cst.CSTOperator(cst.CSTConfig(dim=2, in_channels=1, out_channels=1, width=128, hidden=128))
source = cst.PointField(pos=torch.rand(500, 2), u=torch.randn(500, 1), weights=torch.ones(500))
target = cst.PointField(pos=torch.rand(40_000, 2))
model.predict(source, cst.PointField(pos=target.pos[:100]))  # loads and starts what is needed
limits = [int(x) for x in sys.argv[1:]]
for limit in limits:
    before = peak()
    model.predict(source, target, chunk=40_000, memory_limit=limit)
    print(peak() - before)
"""


def test_the_memory_taken_stays_under_the_limit():
    limits = [24 * 2**20, 80 * 2**20, 0]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, limits)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    small, large, unlimited = (int(line) for line in done.stdout.split())
    assert small <= limits[0]
    assert small + large <= limits[1]  # peaks are those above all before
    assert large > 0 and small + large + unlimited > 1.5 * limits[1]  # limits do matter


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "joint"])
def test_a_limit_changes_no_answer(kind, seed, generator):
    model = tiny_model(seed, **KINDS[kind])
    source, target = known_field(generator, 40), queries_in(generator, 50)
    assert fitting_chunk(model.config, 50, 8, 100_000) < 25
    few = model.predict(source, target, memory_limit=100_000)
    # Sums are taken in another order: some hundred operations on numbers of order one in float64.
    torch.testing.assert_close(few.u, model.predict(source, target).u, rtol=0, atol=1e-12)


def test_an_ensemble_keeps_the_limit(seed, generator, monkeypatch):
    models = [tiny_model(seed), tiny_model(seed + 1)]
    chunks = []

    def decode(model, encoded, s):
        chunks.append(s.shape[1])
        return CSTOperator.decode(model, encoded, s)

    for model in models:
        monkeypatch.setattr(model, "_write", decode)
    source, target = known_field(generator, 40), queries_in(generator, 50)
    Ensemble(models).predict(source, target, memory_limit=100_000)
    assert max(chunks) == fitting_chunk(models[0].config, 50, 8, 100_000)


def test_a_limit_that_cannot_be_kept_is_refused(seed, generator):
    source, target = known_field(generator, 40), queries_in(generator, 50)
    with pytest.raises(InputError, match="memory_limit is 1000 bytes; the answers to 50 queries"):
        tiny_model(seed).predict(source, target, memory_limit=1000)
    with pytest.raises(ConfigError, match="joint form answers all queries at once"):
        tiny_model(seed, form="joint").predict(source, target, memory_limit=10**9)
